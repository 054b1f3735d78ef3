//! Names of fields whose values are secrets.

use super::Rules;

/// Names that are always looked for, unless the rules keep them. A name is meant that ends like
/// one of these, whatever its case, and with or without `-`, `_`, `.` between the words.
pub(super) const NAMES: [&str; 37] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "pwd",
    "secret",
    "token",
    "jwt",
    "otp",
    "sig",
    "psk",
    "bearer",
    "api_key",
    "access_key",
    "secret_key",
    "private_key",
    "preshared_key",
    "pre_shared_key",
    "shared_key",
    "auth_key",
    "account_key",
    "master_key",
    "encryption_key",
    "encrypted_key",
    "signing_key",
    "session_key",
    "ssh_key",
    "openvpn_key",
    "openvpn_user",
    "authorization",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "amz_signature",
    "private_token",
];
/// Names of headers: their value is the rest of the line.
const HEADERS: [&str; 3] = ["authorization", "cookie", "cookies"];
/// Shorter names must be words of their own: `pwd` is in `old_pwd` and not in `xpwd`.
const LONG_BYTES: usize = 5;

/// How the value of a name stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The rest of the line belongs to it.
    pub(super) header: bool,
    /// Prose has the name too: only `=` and quotes make it one.
    pub(super) short: bool,
}

#[derive(Debug)]
struct Name {
    /// Small letters and digits only.
    folded: Vec<u8>,
    /// Small letters of the last word.
    last_word: String,
    kind: Kind,
}

/// The names of some rules.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<Name>,
    /// Whether a name ends with this byte, small or capital.
    last: [bool; 256],
}

impl Names {
    pub(super) fn new(rules: &Rules) -> Self {
        let built_in = NAMES.iter().copied().filter(|name| !rules.keeps(name));
        let all = built_in.chain(rules.names.iter().map(String::as_str));
        let mut last = [false; 256];
        let names: Vec<Name> = all
            .map(|name| {
                let lower = name.to_ascii_lowercase();
                let words = lower.split(is_joint).filter(|word| !word.is_empty());
                let folded: Vec<u8> = words.flat_map(str::bytes).collect();
                if let Some(byte) = folded.last() {
                    last[usize::from(*byte)] = true;
                    last[usize::from(byte.to_ascii_uppercase())] = true;
                }
                let kind = Kind {
                    header: HEADERS.contains(&name),
                    short: folded.len() < LONG_BYTES,
                };
                Name {
                    last_word: lower.rsplit(is_joint).next().unwrap_or_default().to_owned(),
                    folded,
                    kind,
                }
            })
            .collect();
        Self { names, last }
    }

    /// The last words of the names: where one occurs, a name may end.
    pub(super) fn last_words(&self) -> impl Iterator<Item = String> {
        let words = self.names.iter().map(|name| name.last_word.clone());
        words.collect::<std::collections::BTreeSet<_>>().into_iter()
    }

    /// Whether `name` ends like one of the names; numbers at its end do not count.
    #[inline]
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let last = name.last().copied().unwrap_or(0);
        let may = self.last[usize::from(last)] || !last.is_ascii_alphabetic();
        may && self.find(name).is_some()
    }

    /// The kind of the name, if it is one.
    pub(super) fn find(&self, name: &[u8]) -> Option<Kind> {
        let end = name.iter().rposition(u8::is_ascii_alphabetic)? + 1;
        let name = name.get(..end)?;
        let found = self.names.iter().filter(|known| known.ends(name));
        // The one that says most: a header is a header whatever else it is.
        found.map(|known| known.kind).reduce(|one, other| Kind {
            header: one.header || other.header,
            short: one.short && other.short,
        })
    }
}

impl Name {
    fn ends(&self, name: &[u8]) -> bool {
        let mut rest = name;
        let mut first = 0;
        for wanted in self.folded.iter().rev() {
            loop {
                let Some((byte, before)) = rest.split_last() else {
                    return false;
                };
                rest = before;
                first = *byte;
                if first.eq_ignore_ascii_case(wanted) {
                    break;
                }
                if !is_joint(first.into()) {
                    return false;
                }
            }
        }
        let own_word = rest.last().is_none_or(|before| {
            !before.is_ascii_alphanumeric()
                || (before.is_ascii_lowercase() && first.is_ascii_uppercase())
        });
        own_word || !self.kind.short
    }
}

/// What may stand between the words of a name.
fn is_joint(c: char) -> bool {
    matches!(c, '-' | '_' | '.' | ' ')
}
