//! What is a secret and what only looks like one. `<...>` marks what has to go; `{12}` stands for
//! as many letters and digits, so that no text here looks like a real key to others.

use super::*;
use proptest::prelude::*;

/// Texts with their secrets marked.
const LEAKS: [&str; 99] = [
    "password=<hunter2>",
    "PASSWORD = <hunter2>",
    "login failed: user=bob password=<hunter2> host=db",
    "password=<hunter2>, user=bob",
    "Server=db;Pwd=<hunter2>;Database=x",
    "db_password: <hunter2>",
    "dbPassword: '<hunter two>'",
    "password: \"<hunter \\\" two>\" next",
    "password=\"<hunter2",
    "MYSQL_ROOT_PASSWORD=<hunter2>",
    "{\"password\":\"<hunter2>\",\"user\":\"bob\"}",
    "{'password': '<hunter2>', 'user': 'bob'}",
    "{'password': b'<hunter2>'}",
    "{\\\"password\\\":\\\"<hunter2>\\\",\\\"user\\\":\\\"bob\\\"}",
    "body: \"{\\\\\\\"token\\\\\\\": \\\\\\\"<hunter2>\\\\\\\"}\"",
    "{User:bob Password:<hunter2> Port:1}",
    "Config { password: \"<hunter2>\", port: 1 }",
    "Config { password: <Some(\"hunter2\">), port: 1 }",
    "<<password><hunter2></password>",
    "password => <hunter2>",
    "password := <hunter2>",
    "passwd=<hunter2> ok",
    "secret=<hunter2>)",
    "openvpn --password <hunter2> --verb 3",
    "tool --api-key=<hunter2> run",
    "tool --token '<hunter 2>' run",
    "password%3D<hunter2>&x=1",
    "client_secret=<hunter2>&grant_type=password",
    "GET /ace/getstream?id=1&token=<hunter2>&pid=7 HTTP/1.1",
    "GET /x?api_key=<hunter2#top>",
    "https://h/x?X-Amz-Signature=<hunter2>&a=1",
    "https://h/x?sig=<hunter2>&se=2026",
    "access_token=<hunter2>",
    "accessToken=<hunter2>",
    "x-api-key: <hunter2>",
    "apikey=<hunter2>",
    "api key: <hunter2>",
    "aws_secret_access_key = <{40}>",
    "token_2=<hunter2>",
    "tokens are rotated: token=<hunter2>",
    "token=<[abc def]>",
    "token=<[abc]def>",
    "token: <{'a': 'b c'}> end",
    "env=[\"WIREGUARD_PRIVATE_KEY=<{43}=>\",\"TZ=UTC\"]",
    "WIREGUARD_PRESHARED_KEY=<{43}=>",
    "[Interface]\nPrivateKey = <{43}=>\nAddress = 10.0.0.2/32",
    "PresharedKey = <{43}=>",
    "wg set wg0 preshared-key=<{43}=>",
    "OPENVPN_USER=<p1234567> OPENVPN_PASSWORD=<hunter2>",
    "OPENVPN_KEY_PASSPHRASE=<hunter2>",
    "HTTPPROXY_PASSWORD=<hunter2>",
    "SHADOWSOCKS_PASSWORD=<hunter2>",
    "Authorization: <Basic dXNlcjpwYXNz>",
    "authorization: <Digest username=\"u\", response=\"abc\">\nHost: h",
    "curl -H 'Authorization: <Bearer abc>' http://h/",
    "curl -H \"X-Auth-Token: <abc>\" http://h/",
    "Proxy-Authorization: <Basic dXNlcjpwYXNz>\r\nHost: h",
    "Cookie: <sid=abc; theme=dark>",
    "Set-Cookie: <sid=abc; Path=/; HttpOnly>\nX: 1",
    "{\"Cookie\":\"<sid=abc; b=c>\"}",
    "map[Authorization:<[Bearer abc] Accept:[*/*]]>",
    "sent Bearer <{24}> to the peer",
    "bearer <abcdefghijklmnopqrstuv>",
    "Basic <dXNlcjpwYXNz>",
    "Basic <dXNlcjpwYXM=>",
    "jwt <eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln>",
    "<eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0>",
    "(<eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.>)",
    "key <AKIA2222333344445555>",
    "key <ASIA2222333344445555>.",
    "<ghp_{36}>",
    "push with <gho_{36}>, done",
    "<ghu_{36}>",
    "<ghs_{36}>",
    "<ghr_{36}>",
    "<github_pat_{22}_{40}>",
    "<glpat-{20}>",
    "<xoxb-{12}-{12}>",
    "<xoxp-{12}-{12}>",
    "<xapp-1-{20}>",
    "https://<hooks.slack.com/services/T{8}/B{8}/{24}>",
    "<AIza{35}>",
    "<ya29.{30}>",
    "<sk_live_{24}>",
    "<rk_live_{24}>",
    "<npm_{36}>",
    "<dckr_pat_{27}>",
    "<SG.{22}.{43}>",
    "<hf_{34}>",
    "<dop_v1_{64}>",
    "<sk-proj-{40}>",
    "redis://:<hunter2>@cache:6379/0",
    "cannot reach postgres://app:<hunter2>@db/x?sslmode=off",
    "postgres://app:<p/ss/w#rd?>@db/x",
    "postgres://app:<p@ss>@db/x",
    "amqp://u:<hunter2>@h and http://v:<hunter3>@i/",
    "https://<{36}>@github.com/x.git",
    "socks5://u:<12345>@h:1080",
    "<-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----> and on",
];

/// Further ones whose marks would be ambiguous: text, secret.
const PEMS: [(&str, &str); 3] = [
    ("-----BEGIN PRIVATE KEY-----\nMIIEcut", "MIIEcut"),
    (
        "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3Blbn\\n-----END OPENSSH PRIVATE KEY-----",
        "b3Blbn",
    ),
    (
        "-----BEGIN OpenVPN Static key V1-----\n6acef0\n-----END OpenVPN Static key V1-----",
        "6acef0",
    ),
];

/// Texts that come through to the byte.
pub(super) const HARMLESS: [&str; 73] = [
    "",
    "health_check",
    "12 engines",
    "{id: 4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c}",
    "4f6c0a114f6c0a114f6c0a114f6c0a114f6c0a114f6c0a114f6c0a114f6c0a11",
    "acestream-12",
    "sha256:4f6c0a114f6c0a114f6c0a114f6c0a114f6c0a114f6c0a114f6c0a114f6c0a11",
    "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "5e0e4a2c-7d7f-4f5c-9a57-0f3f2c1b7a11",
    "token",
    "tokens",
    "token_count=12",
    "max_tokens: 4096",
    "token_type=bearer",
    "the token has expired",
    "tokenizer: fast",
    "token::parse failed",
    "token -> state",
    "if token > 3 then x",
    "password",
    "password changed",
    "password_changed=true",
    "has_password=true",
    "password=None",
    "password: null",
    "token=nil, user=bob",
    "password=",
    "password=\"\"",
    "password=***",
    "password_file=/run/secrets/db",
    "POSTGRES_PASSWORD_FILE=/run/secrets/db",
    "passed=10 failed=0",
    "second pass: 12 ms",
    "bypass=1",
    "compass=north",
    "cookie.count=3",
    "cookies_enabled=yes",
    "secretary: bob",
    "secret_name=db",
    "authorization_url=https://h/x",
    "author: bob",
    "keys=12 key=4f6c key_type=infohash",
    "monkey: see",
    "public_key=abc",
    "signal: 9, sigterm=1, design=x",
    "xpwd=1",
    "basic settings",
    "basic authentication failed",
    "Basic research",
    "bearer of bad news",
    "Bearer",
    "the bearer auth-scheme",
    "ssh://git@github.com/x.git",
    "http://10.0.0.7:19000/ace/getstream?id=4f6c0a",
    "http://[::1]:8080/x",
    "http://h:80/a@b",
    "https://h/path?next=http://i:81/",
    "mail bob@example.org: no reply",
    "C:\\dir\\file: not found",
    "key AKIA2222 short",
    "AKIAabcdefghijklmnop",
    "xAKIA2222333344445555",
    "AKIA22223333444455556666",
    "task-sk-learn-pipeline-number-one",
    "sk-learn-pipeline-number-one-again",
    "ghp_short",
    "hf_hub_download_of_a_long_function_name",
    "npm_config_registry",
    "eyJ",
    "eyJust.a",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----",
    "at 10:31:07: connect() = -1; errno=111",
];

/// Letters and digits, always the same.
fn expand(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let count = after
            .split_once('}')
            .and_then(|(count, _)| count.parse::<usize>().ok());
        if let Some(count) = count {
            let letters = "Q7aZ3kR9tB1xW5mC8vN2eJ6".chars().cycle();
            out.extend(letters.take(count));
            rest = after.split_once('}').unwrap().1;
        } else {
            out.push('{');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The text without its marks, and its secrets. `<<` stands for `<`, `</` for itself.
pub(super) fn marked(text: &str) -> (String, Vec<String>) {
    let text = expand(text);
    let (mut plain, mut secrets) = (String::new(), Vec::new());
    let mut open = None;
    let mut chars = text.chars().peekable();
    let mut tag = false;
    while let Some(c) = chars.next() {
        match c {
            '<' if chars.peek() == Some(&'<') => {
                chars.next();
                plain.push('<');
                tag = true;
            }
            '<' if chars.peek() == Some(&'/') => {
                plain.push('<');
                tag = true;
            }
            '>' if tag => {
                plain.push('>');
                tag = false;
            }
            '<' => open = Some(plain.len()),
            '>' if open.is_some() => secrets.push(plain[open.take().unwrap()..].to_owned()),
            c => plain.push(c),
        }
    }
    secrets.extend(open.map(|from| plain[from..].to_owned()));
    assert!(!secrets.is_empty() || text.is_empty(), "{text}");
    (plain, secrets)
}

fn clean(text: &str) -> String {
    Redactor::built_in().clean(text).into_owned()
}

#[test]
fn every_secret_of_the_list_goes_and_what_is_around_it_stays() {
    let mut wrong = Vec::new();
    for leak in LEAKS {
        let (plain, secrets) = marked(leak);
        let mut expected = plain.clone();
        for secret in &secrets {
            expected = expected.replacen(secret.as_str(), REDACTED, 1);
        }
        if clean(&plain) != expected {
            wrong.push(format!("{plain:?} -> {:?}", clean(&plain)));
        }
    }
    assert_eq!(wrong, [""; 0]);
    for (text, secret) in PEMS {
        assert!(!clean(text).contains(secret), "{text}");
    }
}

#[test]
fn look_alikes_come_through_unchanged() {
    let changed = HARMLESS.into_iter().filter(|text| clean(text) != *text);
    let changed: Vec<_> = changed.map(|text| (text, clean(text))).collect();
    assert_eq!(changed, []);
}

#[test]
fn a_text_that_was_cut_in_a_secret_shows_no_part_of_it() {
    let redactor = Redactor::built_in();
    let mut wrong = Vec::new();
    for leak in LEAKS {
        let (plain, secrets) = marked(leak);
        // Of a value that is told by its look only, what looks like it.
        let shown_max = 3;
        let secret = &secrets[0];
        let from = plain.find(secret.as_str()).unwrap();
        let named = plain[..from].contains(['=', ':', ' ', '>']) || secret.contains("BEGIN");
        for to in from + 1..from + secret.len() {
            let Some(text) = plain.get(..to) else {
                continue;
            };
            let mut out = text.as_bytes().to_vec();
            if redactor.text(text.as_bytes(), true, &mut out) == 0 {
                out = text.as_bytes().to_vec();
            }
            let out = String::from_utf8(out).unwrap();
            let prefix = TOKENS.iter().any(|token| {
                token.prefix.starts_with(&text[from..]) || text[from..] == *token.prefix
            });
            let left = out.strip_prefix(&text[..from]).unwrap_or("");
            // The first line of a key is none of it.
            let shown = left.len() > shown_max && secret.starts_with(left) && !prefix;
            let shown = shown && (!secret.contains("BEGIN") || text.contains("KEY-"));
            if shown && named {
                wrong.push(format!("{text:?} -> {out:?}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn names_are_told_by_how_they_end() {
    let redactor = Redactor::built_in();
    for name in [
        "password",
        "Password",
        "PASSWORD",
        "db_password",
        "db-password",
        "dbPassword",
        "x.password",
        "password2",
        "token_1",
        "api_key",
        "api-key",
        "apiKey",
        "APIKEY",
        "x-api-key",
        "Set-Cookie",
        "cookies",
        "pwd",
        "old_pwd",
        "oldPwd",
        "pass",
        "user_pass",
        "Authorization",
        "psk",
        "PrivateKey",
        "wireguard_private_key",
        "presharedkey",
        "X-Amz-Signature",
        "jwt",
    ] {
        assert!(redactor.is_secret_name(name.as_bytes()), "{name}");
    }
    for name in [
        "",
        "_",
        "12",
        "passwords_seen",
        "token_count",
        "max_tokens",
        "bypass",
        "compass",
        "key",
        "key_type",
        "ace_id",
        "session_id",
        "xpwd",
        "secret_name",
        "cookie_count",
        "author",
        "design",
        "public_key",
        "sampling_salt",
        "container_id",
        "duration_ms",
        "k\u{e9}y",
    ] {
        assert!(!redactor.is_secret_name(name.as_bytes()), "{name}");
    }
}

#[test]
fn rules_add_and_take_away() {
    let rules = Rules {
        names: vec!["engine_pin".to_owned()],
        patterns: vec![r"corp-[0-9]{4}".to_owned()],
        keep: vec!["token".to_owned(), "aws".to_owned()],
        on: true,
    };
    let redactor = Redactor::new(&rules).unwrap();
    for (text, expected) in [
        ("engine_pin=77 x", "engine_pin=[redacted] x"),
        ("b\u{e9} corp-1234!", "b\u{e9} [redacted]!"),
        ("token=abc", "token=abc"),
        ("private_token=abc", "private_token=[redacted]"),
        ("AKIA2222333344445555", "AKIA2222333344445555"),
        ("password=abc", "password=[redacted]"),
    ] {
        assert_eq!(redactor.clean(text), expected);
    }
    assert!(redactor.is_secret_name(b"EnginePin"));
    assert_eq!(
        Rules::from_text(rules.to_json().to_string().as_bytes()),
        Some(rules)
    );
    assert_eq!(Rules::from_text(b"{}"), Some(Rules::default()));
    for text in [
        "",
        "[]",
        "{\"names\":1}",
        "{\"patterns\":[\"(\"]}",
        "{\"keep\":[\"nothing\"]}",
    ] {
        assert_eq!(Rules::from_text(text.as_bytes()), None, "{text}");
    }
    let wrong = |rules: Rules| rules.check().unwrap_err();
    let some = |text: &str| vec![text.to_owned()];
    for name in ["", "key2", "\u{e9}", "a b"] {
        let names = some(name);
        assert!(
            matches!(
                wrong(Rules {
                    names,
                    ..Rules::default()
                }),
                RuleError::Name(_)
            ),
            "{name}"
        );
    }
    for pattern in ["(", "a*", "(?:a{1000}){1000}"] {
        let patterns = some(pattern);
        let error = wrong(Rules {
            patterns,
            ..Rules::default()
        });
        assert!(matches!(error, RuleError::Pattern(_)), "{error}");
    }
}

fn json(text: &str, counts: bool) -> (String, u64) {
    let mut out = Vec::new();
    match Redactor::built_in().json(text, counts, &mut out) {
        0 => (text.to_owned(), 0),
        found => (String::from_utf8(out).unwrap(), found),
    }
}

#[test]
fn json_loses_the_values_of_secret_names_at_any_depth() {
    for (text, expected, count) in [
        (r#"{"a":1}"#, r#"{"a":1}"#, 0),
        (
            r#"{ "password" : "x" , "b":[ 1 ] }"#,
            r#"{ "password" : "[redacted]" , "b":[ 1 ] }"#,
            1,
        ),
        (
            r#"[{"a":{"token":1.5e3}},2]"#,
            r#"[{"a":{"token":"[redacted]"}},2]"#,
            1,
        ),
        (
            r#"{"token":null,"secret":true,"pass":"","cookies":{ }}"#,
            "",
            0,
        ),
        (
            r#"{"cookies":{"a":["b","}"]},"c":1}"#,
            r#"{"cookies":"[redacted]","c":1}"#,
            1,
        ),
        (
            r#"{"pass\u0077ord":"x"}"#,
            r#"{"pass\u0077ord":"[redacted]"}"#,
            1,
        ),
        (r#"["a","token","b"]"#, "", 0),
        (
            r#"["token=\u0061bc","\u0074oken=x y"]"#,
            r#"["token=[redacted]","token=[redacted] y"]"#,
            2,
        ),
        (
            r#"{"a":"say \"password\": \"x\""}"#,
            r#"{"a":"say \"password\": \"[redacted]\""}"#,
            1,
        ),
        (r#"{"a":"tab\there"}"#, "", 0),
        (r#""redis://:x@h""#, r#""redis://:[redacted]@h""#, 1),
        (
            r#"{"redis://:x@h":"password"}"#,
            r#"{"redis://:[redacted]@h":"password"}"#,
            1,
        ),
        (r#"{"token":"[redacted]"}"#, "", 0),
    ] {
        let expected = if expected.is_empty() { text } else { expected };
        assert_eq!(json(text, false), (expected.to_owned(), count));
    }
}

/// The ledger names categories; one that is called `token` has its counts all the same.
#[test]
fn counts_of_a_category_with_the_name_of_a_secret_stay() {
    let text = r#"{"token":{"written":7,"secret":"x"},"cookies":[1]}"#;
    let expected = r#"{"token":{"written":7,"secret":"[redacted]"},"cookies":[1]}"#;
    assert_eq!(json(text, true), (expected.to_owned(), 1));
}

/// Texts of what rules look at, in any order.
fn suspect() -> impl Strategy<Value = String> {
    let pieces = [
        "password",
        "token",
        "Cookie",
        "Authorization",
        "bearer ",
        "Basic ",
        "://",
        "@",
        ":",
        "=",
        "\"",
        "'",
        "\\",
        "\\\"",
        " ",
        "\n",
        ",",
        ";",
        "&",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "<",
        ">",
        "--",
        "-----BEGIN ",
        "PRIVATE KEY-----",
        "-----END ",
        "eyJ",
        ".",
        "ghp_",
        "AKIA",
        "sk-",
        "abcDEF123",
        "x",
        "\u{e9}",
        "\u{202e}",
        "%3D",
        "[redacted]",
        "null",
        "_",
        "1",
    ];
    let piece = prop_oneof![
        4 => proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9]{1,24}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

#[test]
fn a_token_that_is_the_user_of_a_url_is_found_beside_its_password() {
    let token = format!("ghp_{}", "a1B2".repeat(9));
    let url = format!("https://{token}:x-oauth-basic@git.example/a.git");
    let cleaned = "https://[redacted]:[redacted]@git.example/a.git";
    assert_eq!(clean(&url), cleaned);
    assert_eq!(clean(cleaned), cleaned);
}

#[test]
fn a_user_with_a_secret_name_is_not_redacted_the_second_time() {
    let once = clean("0://password:://@h");
    assert_eq!(once, "0://password:[redacted]@h");
    assert_eq!(clean(&once), once);
}

proptest! {
    #[test]
    fn a_second_time_changes_nothing(text in suspect()) {
        let once = clean(&text);
        // As below.
        if !(text.contains("://") && text.contains('@')) {
            prop_assert_eq!(clean(&once), once);
        }
    }

    #[test]
    fn what_is_made_of_json_is_json(texts in proptest::collection::vec(suspect(), 1..6)) {
        let mut object = serde_json::Map::new();
        for (index, text) in texts.iter().enumerate() {
            let value = match index % 3 {
                0 => serde_json::Value::from(text.as_str()),
                1 => serde_json::json!([{ text.as_str(): index }, text]),
                _ => serde_json::json!({ "token": [text] }),
            };
            object.insert(text.clone(), value);
        }
        let text = serde_json::Value::from(object).to_string();
        let (cleaned, _) = json(&text, false);
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&cleaned);
        prop_assert!(parsed.is_ok(), "{}", cleaned);
        // Names with no value become names with one where a password of a URL stood.
        if !(text.contains("://") && text.contains('@')) {
            let (again, count) = json(&cleaned, false);
            prop_assert_eq!((again, count), (cleaned, 0));
        }
    }

    #[test]
    fn any_bytes_can_be_looked_at(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut: bool,
    ) {
        Redactor::built_in().text(&bytes, cut, &mut Vec::new());
    }
}

/// Texts that make a careless search look at the rest of the text again and again. Twice the
/// length may take a little more than twice the steps; the time for a megabyte shows it.
#[test]
fn a_hostile_megabyte_is_looked_at_once() {
    for piece in [
        "token=\"",
        "token:{",
        "token=(",
        "token='\\",
        "a://b:c/",
        "eyJ-",
        "eyJaaaaaaaa.",
        "--token ",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "Cookie: ",
        "token=a,",
        "bearer a",
        "tokentoken",
    ] {
        let text = piece.repeat((1 << 20) / piece.len());
        let mut out = Vec::new();
        Redactor::built_in().text(text.as_bytes(), true, &mut out);
    }
}
