//! JSON text against slow, independent implementations.

use std::fmt::Write;

use super::super::json_text::{JsonText, is_json_number, json_text};
use super::super::scrub::Scrub;
use super::*;
use proptest::prelude::*;

fn string(text: &[u8]) -> String {
    let mut out = LineBuffer::new();
    put_string(&mut out, text);
    String::from_utf8(out.content().to_vec()).unwrap()
}

fn json(text: &str) -> String {
    let mut out = LineBuffer::new();
    Scrub::new(None).put_json(&mut out, text.as_bytes(), false, false);
    String::from_utf8(out.content().to_vec()).unwrap()
}

/// FORMAT.md 9.3 character by character.
fn slow_string(text: &[u8]) -> String {
    let mut out = String::from("\"");
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c => {
                let code = c as u32;
                let escape = code < 0x20
                    || (0x7f..=0x9f).contains(&code)
                    || [0x61c, 0x200e, 0x200f, 0xfeff].contains(&code)
                    || (0x2028..=0x202e).contains(&code)
                    || (0x2060..=0x2069).contains(&code);
                if escape {
                    write!(out, "\\u{code:04x}").unwrap();
                } else {
                    out.push(c);
                }
            }
        }
    }
    out + "\""
}

#[test]
fn every_character_of_the_basic_plane_is_escaped_as_the_format_says() {
    for c in '\0'..='\u{ffff}' {
        for text in [
            format!("{c}"),
            format!("abcdefgh{c}"),
            format!("\u{e4}{c}\u{20ac}abcdefghi"),
        ] {
            assert_eq!(
                string(text.as_bytes()),
                slow_string(text.as_bytes()),
                "{c:?}"
            );
        }
    }
}

#[test]
fn every_byte_is_found_at_every_place_of_a_word() {
    for byte in 0..=255_u8 {
        for place in 0..20 {
            let mut text = [b'a'; 20];
            text[place] = byte;
            assert_eq!(string(&text), slow_string(&text), "{byte} at {place}");
        }
    }
}

/// Long texts are the same in pieces, wherever these end.
#[test]
fn long_texts_are_escaped_in_pieces() {
    let kinds: [&[u8]; 9] = [
        b"a",
        b"\x01\"",
        "\u{e4}".as_bytes(),
        "\u{202e}".as_bytes(),
        "\u{1f600}".as_bytes(),
        b"\x80",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xf8\x88\x80\x80\x80",
    ];
    for kind in kinds {
        for before in 0..8 {
            let text = [vec![b'x'; before], kind.repeat(200_000 / kind.len())].concat();
            let json = [b"\"", text.as_slice(), b"\""].concat();
            for (text, json) in [(text, false), (json, true)] {
                let valid = std::str::from_utf8(&text);
                let mut expected = LineBuffer::new();
                match valid {
                    Ok(text) if json => put_json_str(&mut expected, text),
                    _ if json => continue,
                    _ => put_escaped(&mut expected, &text),
                }
                let mut pieces = Vec::new();
                let long = LongText { at: 0, text, json };
                let written = write_long(&long, |piece| {
                    assert!(piece.len() <= 6 * PIECE_BYTES);
                    pieces.extend_from_slice(piece);
                    Ok::<(), ()>(())
                });
                assert_eq!(written, Ok(()));
                assert!(pieces == expected.content(), "{}", kind.escape_ascii());
            }
        }
    }
}

/// The digits by exact decimal arithmetic on a text.
fn slow_duration(ns: u64, decimals: usize) -> String {
    if decimals == 0 {
        return (ns / 1_000_000).to_string();
    }
    let mut digits: Vec<u8> = format!("{ns:07}").bytes().map(|byte| byte - b'0').collect();
    let cut: Vec<u8> = digits.split_off(digits.len() - (6 - decimals));
    let half = match cut.first() {
        None => std::cmp::Ordering::Less,
        Some(first) => first.cmp(&5).then(if cut[1..].iter().any(|d| *d > 0) {
            std::cmp::Ordering::Greater
        } else {
            std::cmp::Ordering::Equal
        }),
    };
    let odd = digits.last().unwrap() % 2 == 1;
    if half == std::cmp::Ordering::Greater || (half == std::cmp::Ordering::Equal && odd) {
        let mut place = digits.len();
        loop {
            if place == 0 {
                digits.insert(0, 1);
                break;
            }
            place -= 1;
            if digits[place] < 9 {
                digits[place] += 1;
                break;
            }
            digits[place] = 0;
        }
    }
    let text: String = digits
        .iter()
        .map(|digit| char::from(b'0' + digit))
        .collect();
    let (whole, fraction) = text.split_at(text.len() - decimals);
    let fraction = fraction.trim_end_matches('0');
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    format!("{whole}.{fraction}")
}

fn duration(ns: u64, decimals: u8) -> String {
    let mut out = LineBuffer::new();
    let mut pen = out.pen();
    put_duration(&mut pen, ns, decimals);
    pen.finish();
    String::from_utf8(out.content().to_vec()).unwrap()
}

#[test]
fn durations_are_rounded_half_to_even() {
    for (ns, decimals, expected) in [
        (264_000_000, 2, "264.0"),
        (264_125_000, 2, "264.12"),
        (264_135_000, 2, "264.14"),
        (264_125_001, 2, "264.13"),
        (999_995_000, 2, "1000.0"),
        (999_994_999, 2, "999.99"),
        (5_000, 2, "0.0"),
        (15_000, 2, "0.02"),
        (1_999_999, 0, "1"),
        (123_456, 6, "0.123456"),
        (u64::MAX - 1, 6, "18446744073709.551614"),
        (100_000, 3, "0.1"),
    ] {
        assert_eq!(duration(ns, decimals), expected, "{ns} {decimals}");
    }
}

#[test]
fn json_keeps_its_text_in_one_line() {
    for (text, expected) in [
        ("{\"a\": [1, 2.50,\n\t-0e1]}", "{\"a\": [1, 2.50,  -0e1]}"),
        ("\"\u{85}\u{202e}\u{7f}\"", "\"\\u0085\\u202e\\u007f\""),
        ("\"\\ud83d\\ude00\"", "\"\\ud83d\\ude00\""),
        ("\"\\ud83d\"", "\"\\\"\\\\ud83d\\\"\""),
        ("\"\\udc00\"", "\"\\\"\\\\udc00\\\"\""),
        ("{\"a\":1", "\"{\\\"a\\\":1\""),
        ("", "\"\""),
        ("01", "\"01\""),
        ("1 2", "\"1 2\""),
        ("nul", "\"nul\""),
        ("[1,]", "\"[1,]\""),
    ] {
        assert_eq!(json(text), expected, "{text}");
    }
}

#[test]
fn json_is_written_as_a_string_when_it_is_too_deep() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(json(&nested(126)), nested(126));
    assert_eq!(json(&nested(127)), format!("\"{}\"", nested(127)));
    let line = format!("{{\"a\":{}}}", nested(126));
    assert!(
        serde_json::from_str::<serde_json::Value>(&line).is_ok(),
        "a line can be read"
    );
    assert!(json(&nested(1_000_000)).starts_with('"'));
}

#[test]
fn numbers_follow_the_grammar() {
    for valid in [
        "0",
        "-0",
        "1.50",
        "1e5",
        "1E+5",
        "-12.0e-3",
        "123456789012345678901234567890",
    ] {
        assert!(is_json_number(valid.as_bytes()), "{valid}");
    }
    for wrong in [
        "", "-", "01", "1.", ".5", "1e", "+1", "1 ", " 1", "NaN", "1_0", "0x1", "1e+",
    ] {
        assert!(!is_json_number(wrong.as_bytes()), "{wrong}");
    }
}

/// Any text, and such that is nearly JSON.
fn near_json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\"",
        "\"\\u00e4\"",
        "\"\\ud800\"",
        "\"\\q\"",
        "1",
        "-",
        "0.5",
        "1e3",
        "e",
        ".",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "\"",
        "\\",
        "\u{1}",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat()),
    ]
}

proptest! {
    #[test]
    fn strings_match_the_slow_way(text in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(string(&text), slow_string(&text));
        let back: String = serde_json::from_str(&string(&text)).unwrap();
        prop_assert_eq!(back, String::from_utf8_lossy(&text));
    }

    #[test]
    fn durations_match_the_slow_way(
        ns in prop_oneof![0..10_000_000_u64, any::<u64>(), (0..1_000_000_u64).prop_map(|n| n * 5000)],
        decimals in 0..=6_u8,
    ) {
        prop_assert_eq!(duration(ns, decimals), slow_duration(ns, decimals.into()));
    }

    /// serde_json agrees on what is JSON; it also refuses numbers that no float can hold.
    #[test]
    fn json_texts_are_those_that_serde_json_reads(text in near_json()) {
        let valid = matches!(json_text(text.as_bytes()), JsonText::Valid(_));
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(_) => prop_assert!(valid, "{text}"),
            Err(error) => prop_assert!(
                !valid || error.to_string().contains("out of range"),
                "{text}: {error}"
            ),
        }
    }
}
