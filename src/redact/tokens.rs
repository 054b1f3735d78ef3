//! Tokens that are known by how they start.

/// A kind of token.
#[derive(Debug)]
pub(super) struct Token {
    /// What the user calls it.
    pub(super) name: &'static str,
    /// How it starts, to the letter.
    pub(super) prefix: &'static str,
    /// Bytes behind the prefix, at least.
    pub(super) more: usize,
    /// Which bytes these are.
    pub(super) alphabet: Alphabet,
}

/// What a token is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Letters, digits, `_`, `-`.
    Word,
    /// The same with at least one capital and one digit, because names start like this too.
    Mixed,
    /// Capitals and digits, exactly as many.
    Capitals,
    /// As `Word`, and `.`.
    Dotted,
    /// As `Word`, and `/`.
    Path,
}

impl Alphabet {
    pub(super) fn contains(self, byte: u8) -> bool {
        let word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        match self {
            Self::Word | Self::Mixed => word,
            Self::Capitals => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Dotted => word || byte == b'.',
            Self::Path => word || byte == b'/',
        }
    }
}

const fn token(name: &'static str, prefix: &'static str, more: usize, alphabet: Alphabet) -> Token {
    // `may_hold` does not look at shorter texts, nor at those of small letters and digits only.
    assert!(prefix.len() + more >= super::SHORT_BYTES);
    Token {
        name,
        prefix,
        more,
        alphabet,
    }
}

/// Every kind. Each prefix has a capital, a `_` or a `-`.
pub(super) static TOKENS: [Token; 27] = [
    token("aws", "AKIA", 16, Alphabet::Capitals),
    token("aws", "ASIA", 16, Alphabet::Capitals),
    token("github", "ghp_", 20, Alphabet::Word),
    token("github", "gho_", 20, Alphabet::Word),
    token("github", "ghu_", 20, Alphabet::Word),
    token("github", "ghs_", 20, Alphabet::Word),
    token("github", "ghr_", 20, Alphabet::Word),
    token("github", "github_pat_", 20, Alphabet::Word),
    token("gitlab", "glpat-", 16, Alphabet::Word),
    token("slack", "xoxb-", 11, Alphabet::Word),
    token("slack", "xoxp-", 11, Alphabet::Word),
    token("slack", "xoxa-", 11, Alphabet::Word),
    token("slack", "xoxr-", 11, Alphabet::Word),
    token("slack", "xoxs-", 11, Alphabet::Word),
    token("slack", "xapp-", 16, Alphabet::Word),
    token("slack", "hooks.slack.com/services/", 20, Alphabet::Path),
    token("google", "AIza", 30, Alphabet::Word),
    token("google", "ya29.", 20, Alphabet::Dotted),
    token("stripe", "sk_live_", 16, Alphabet::Word),
    token("stripe", "sk_test_", 16, Alphabet::Word),
    token("stripe", "rk_live_", 16, Alphabet::Word),
    token("npm", "npm_", 30, Alphabet::Word),
    token("docker", "dckr_pat_", 16, Alphabet::Word),
    token("sendgrid", "SG.", 30, Alphabet::Dotted),
    token("huggingface", "hf_", 30, Alphabet::Mixed),
    token("digitalocean", "dop_v1_", 30, Alphabet::Word),
    token("openai", "sk-", 20, Alphabet::Mixed),
];
