//! A session whose log directory was given as a relative path, in a process that goes to another
//! directory afterwards, as services do. In a process of its own, because all threads go with it.

#[path = "support/recording.rs"]
mod recording;

use std::path::Path;
use std::time::{Duration, Instant};

use stormlog::record::Category;

#[test]
fn a_directory_that_was_removed_is_made_again_where_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let (home, elsewhere) = (temp.path().join("home"), temp.path().join("elsewhere"));
    for dir in [&home, &elsewhere] {
        std::fs::create_dir(dir).unwrap();
    }
    std::env::set_current_dir(&home).unwrap();
    let session = recording::builder()
        .dir(Path::new("logs"))
        .live(true)
        .start()
        .unwrap();
    std::env::set_current_dir(&elsewhere).unwrap();
    let path = home.join(format!("logs/{}_vpn.jsonl", session.id()));
    let (log, vpn) = (session.log(), Category::named("vpn").unwrap());
    let wait_for_it = || {
        let end = Instant::now() + Duration::from_secs(60);
        while !path.exists() {
            assert!(Instant::now() < end, "there is no {}", path.display());
            log.event(vpn, &[]);
            std::thread::sleep(Duration::from_millis(20));
            let wrong = elsewhere.join("logs");
            assert!(!wrong.exists(), "it was made in the wrong place");
        }
    };
    wait_for_it();
    std::fs::remove_dir_all(home.join("logs")).unwrap();
    wait_for_it();
    drop(session.close());
    std::env::set_current_dir("/").unwrap();
}
