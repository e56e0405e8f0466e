use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokenward_crypto::{Aead, DataKeyMaterial};
use tokenward_types::{SecretString, constant_time_eq};
use zeroize::Zeroizing;

const KEY_LENGTH: usize = 32;

/// Versioned keys, one of them the newest. Never empty.
#[derive(Debug)]
pub(crate) struct Keyring {
    newest: u32,
    keys: BTreeMap<u32, Key>,
}

/// A key, and what each of its uses begins with.
#[derive(Debug)]
struct Key {
    material: DataKeyMaterial,
    aead: Aead,
}

impl From<DataKeyMaterial> for Key {
    fn from(material: DataKeyMaterial) -> Self {
        Self { aead: Aead::new(&material), material }
    }
}

impl Keyring {
    /// The version that a rotation makes the active one: the marked one, else the highest.
    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }

    /// All versions, in order.
    pub(crate) fn versions(&self) -> impl Iterator<Item = u32> {
        self.keys.keys().copied()
    }

    pub(crate) fn get(&self, version: u32) -> Option<&Aead> {
        self.keys.get(&version).map(|key| &key.aead)
    }

    /// The first version that has another key here than in `former`.
    pub(crate) fn changed_since(&self, former: &Self) -> Option<u32> {
        let same = |version: &u32, key: &Key| {
            let former = former.keys.get(version);
            former.is_none_or(|other| constant_time_eq(key.material.expose(), other.material.expose()))
        };
        self.keys.iter().find(|(version, key)| !same(version, key)).map(|(version, _)| *version)
    }
}

/// A line with a new key for a keyring, such as `1:BASE64`, without a line break. The key comes from the operating
/// system's generator.
pub fn generate_key(version: u32) -> SecretString {
    let key = DataKeyMaterial::generate();
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(key.expose()));
    SecretString::from(format!("{version}:{}", *encoded))
}

struct Line {
    number: usize,
    marked: bool,
    version: u32,
    key: DataKeyMaterial,
}

/// Reads a keyring and collects everything that is wrong with it. Messages name lines, never what stands in them.
pub(crate) fn parse(text: &str) -> Result<Keyring, Vec<String>> {
    let mut problems = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match parse_line(number, text).and_then(|line| check_against(&lines, line)) {
            Ok(line) => lines.push(line),
            Err(message) => problems.push(format!("line {number} {message}")),
        }
    }
    let mut marks = lines.iter().filter(|line| line.marked);
    let marked = marks.next();
    for other in marks {
        let first = marked.map_or(0, |line| line.number);
        problems.push(format!("line {} is marked, but so is line {first}", other.number));
    }
    let newest = marked.or_else(|| lines.iter().max_by_key(|line| line.version)).map(|line| line.version);
    match newest {
        Some(newest) if problems.is_empty() => {
            let keys = lines.into_iter().map(|line| (line.version, line.key.into())).collect();
            Ok(Keyring { newest, keys })
        }
        None if problems.is_empty() => {
            Err(vec!["holds no key: `tokenward key generate` makes one".to_owned()])
        }
        _ => Err(problems),
    }
}

fn parse_line(number: usize, text: &str) -> Result<Line, String> {
    let (marked, text) = match text.strip_prefix('*') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (version, key) = text.split_once(':').ok_or("must be VERSION:BASE64")?;
    let version = Some(version)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u32>().ok())
        .filter(|version| *version > 0)
        .ok_or("must start with a version, a whole number from 1, and a colon")?;
    Ok(Line { number, marked, version, key: parse_key(key)? })
}

fn parse_key(text: &str) -> Result<DataKeyMaterial, String> {
    // Decoded into a buffer of our own, which is wiped however this ends.
    let mut buffer = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = BASE64_STANDARD
        .decode_slice(text, &mut buffer)
        .map_err(|_| "holds a key that is not base64 (RFC 4648, section 4, with padding)")?;
    let bytes: &[u8; KEY_LENGTH] = buffer[..length]
        .try_into()
        .map_err(|_| format!("holds a key of {length} bytes, but a key has {KEY_LENGTH}"))?;
    Ok(DataKeyMaterial::from_bytes(*bytes))
}

fn check_against(former: &[Line], line: Line) -> Result<Line, String> {
    if let Some(same) = former.iter().find(|other| other.version == line.version) {
        return Err(format!("repeats version {} of line {}", line.version, same.number));
    }
    // A rotation to the same key would change nothing, and destroying the old version would destroy nothing.
    match former.iter().find(|other| constant_time_eq(other.key.expose(), line.key.expose())) {
        Some(same) => Err(format!("repeats the key of line {}", same.number)),
        None => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenward_types::ExposeSecret;

    fn line(version: u32, byte: u8) -> String {
        format!("{version}:{}", BASE64_STANDARD.encode([byte; 32]))
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text).expect_err("it is wrong")
    }

    #[test]
    fn a_generated_line_is_a_keyring() {
        let (first, second) = (generate_key(7), generate_key(7));
        assert_ne!(first.expose_secret(), second.expose_secret());
        assert!(!first.expose_secret().contains('\n'));
        assert_eq!(parse(first.expose_secret()).expect("it is well-formed").newest(), 7);
    }

    #[test]
    fn without_a_mark_the_highest_version_is_the_newest() {
        let ring = parse(&[line(10, 1), line(9, 2)].join("\n")).expect("it is well-formed");
        assert_eq!(ring.newest(), 10);
        assert_eq!(ring.versions().collect::<Vec<_>>(), [9, 10]);
    }

    #[test]
    fn the_marked_version_counts_as_the_newest() {
        for mark in ["*", "* "] {
            let text = format!("{mark}{}\n{}", line(1, 1), line(2, 2));
            assert_eq!(parse(&text).expect("it is well-formed").newest(), 1);
        }
    }

    #[test]
    fn a_version_whose_key_is_another_is_noticed() {
        let ring = |lines: &[String]| parse(&lines.join("\n")).expect("it is well-formed");
        let former = ring(&[line(1, 1), line(2, 2)]);
        assert_eq!(ring(&[line(1, 1), line(2, 2), line(3, 3)]).changed_since(&former), None);
        assert_eq!(ring(&[line(2, 2)]).changed_since(&former), None);
        assert_eq!(ring(&[line(1, 1), line(2, 9)]).changed_since(&former), Some(2));
    }

    #[test]
    fn comments_blank_lines_spaces_and_windows_line_ends_are_ignored() {
        let text = format!("# made in May\r\n\r\n  {}  \r\n", line(1, 1));
        assert_eq!(parse(&text).expect("it is well-formed").versions().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn an_empty_keyring_says_how_to_make_a_key() {
        for text in ["", "\n\n", "# nothing here"] {
            assert_eq!(problems(text), ["holds no key: `tokenward key generate` makes one"]);
        }
    }

    #[test]
    fn every_bad_line_is_reported_by_its_number() {
        let short = BASE64_STANDARD.encode([1; 31]);
        let long = BASE64_STANDARD.encode([1; 33]);
        let text = [
            line(1, 1),
            "hunter2".to_owned(),
            line(0, 2),
            "+1:hunter2".to_owned(),
            ":hunter2".to_owned(),
            "4294967296:hunter2".to_owned(),
            "2:hunter2!".to_owned(),
            format!("3:{short}"),
            format!("4:{long}"),
            "5:".to_owned(),
            line(1, 3),
            line(6, 1),
        ];
        let version = "must start with a version, a whole number from 1, and a colon";
        assert_eq!(
            problems(&text.join("\n")),
            [
                "line 2 must be VERSION:BASE64".to_owned(),
                format!("line 3 {version}"),
                format!("line 4 {version}"),
                format!("line 5 {version}"),
                format!("line 6 {version}"),
                "line 7 holds a key that is not base64 (RFC 4648, section 4, with padding)".to_owned(),
                "line 8 holds a key of 31 bytes, but a key has 32".to_owned(),
                "line 9 holds a key of 33 bytes, but a key has 32".to_owned(),
                "line 10 holds a key of 0 bytes, but a key has 32".to_owned(),
                "line 11 repeats version 1 of line 1".to_owned(),
                "line 12 repeats the key of line 1".to_owned(),
            ]
        );
    }

    #[test]
    fn two_marks_are_reported_with_both_lines() {
        let text = format!("# ring\n*{}\n*{}", line(1, 1), line(2, 2));
        assert_eq!(problems(&text), ["line 3 is marked, but so is line 2"]);
    }

    #[test]
    fn a_problem_never_shows_what_stands_in_its_line() {
        let text = ["hunter2", "x:hunter2", "1:hunter2!", "2:aHVudGVyMg=="].join("\n");
        let shown = problems(&text).join("\n");
        assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
    }

    #[test]
    fn debug_shows_no_key() {
        let encoded = BASE64_STANDARD.encode([0xa7; 32]);
        let shown = format!("{:?}", parse(&format!("1:{encoded}")).expect("it is well-formed"));
        assert!(!shown.contains(&encoded) && !shown.contains("167") && !shown.contains("a7"), "{shown}");
    }
}
