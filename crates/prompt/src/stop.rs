//! Stop strings over text that arrives in pieces; used by `TextStream`.

use crate::Error;

/// Most stop strings a request may name.
const MAX_STOPS: usize = 32;
/// Longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 1024;

/// The stop strings of one request, checked: at most 32, none empty, each at most 1024 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings(Vec<String>);

impl StopStrings {
    /// No stop string at all.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Checks the strings a request or a recipe names. Repeated strings count once.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let mut list: Vec<String> = Vec::new();
        for stop in stops {
            let stop = stop.into();
            if stop.is_empty() {
                return Err(Error::Stop { reason: "an empty string would stop every answer before it begins".into() });
            }
            if stop.len() > MAX_STOP_BYTES {
                let reason = format!("a string of {} bytes is longer than the {MAX_STOP_BYTES} accepted", stop.len());
                return Err(Error::Stop { reason });
            }
            if !list.contains(&stop) {
                list.push(stop);
            }
            if list.len() > MAX_STOPS {
                return Err(Error::Stop { reason: format!("at most {MAX_STOPS} strings are accepted") });
            }
        }
        Ok(Self(list))
    }

    /// The strings, in the order given.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// What came out of a [`StopMatcher`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that no stop string can claim any more.
    pub text: String,
    /// The stop string that was completed, if one was; nothing comes after it.
    pub stop: Option<String>,
}

/// Watches a text for the first stop string to be completed, and keeps back what may be the beginning of one.
///
/// The stop whose last byte comes first wins; of several that end there, the longest. The outcome therefore does not
/// depend on how the text is cut into pieces. Each stop is followed by the automaton of Knuth, Morris and Pratt, so
/// that a byte costs constant time a stop.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Follower>,
    held: String,
    done: bool,
}

#[derive(Debug, Clone)]
struct Follower {
    stop: String,
    /// For each length of a matched prefix, the longest shorter prefix that is also its suffix.
    fallback: Vec<usize>,
    matched: usize,
}

impl Follower {
    fn new(stop: String) -> Self {
        let bytes = stop.as_bytes();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut border = 0;
        for end in 1..bytes.len() {
            while border > 0 && bytes[border] != bytes[end] {
                border = fallback[border];
            }
            border += usize::from(bytes[border] == bytes[end]);
            fallback[end + 1] = border;
        }
        Self { stop, fallback, matched: 0 }
    }

    /// Takes one byte; true when it completes the stop.
    fn step(&mut self, byte: u8) -> bool {
        let bytes = self.stop.as_bytes();
        while self.matched > 0 && bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(bytes[self.matched] == byte);
        self.matched == bytes.len()
    }
}

impl StopMatcher {
    /// Watches for these strings.
    pub fn new(stops: &StopStrings) -> Self {
        Self { stops: stops.0.iter().cloned().map(Follower::new).collect(), held: String::new(), done: false }
    }

    /// Takes the next piece of text. After a stop was completed, further text is dropped.
    pub fn push(&mut self, piece: &str) -> Stopped {
        if self.done {
            return Stopped::default();
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (index, byte) in piece.bytes().enumerate() {
            let mut longest: Option<&str> = None;
            for follower in &mut self.stops {
                if follower.step(byte) && longest.is_none_or(|other| other.len() < follower.stop.len()) {
                    longest = Some(&follower.stop);
                }
            }
            if let Some(stop) = longest {
                let stop = stop.to_owned();
                self.done = true;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(before + index + 1 - stop.len());
                return Stopped { text, stop: Some(stop) };
            }
        }
        // A matched prefix begins at a character and ends with the piece, hence at a character too.
        let keep = self.stops.iter().map(|follower| follower.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Stopped { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// The text kept back, once nothing more comes.
    pub fn finish(&mut self) -> String {
        self.done = true;
        std::mem::take(&mut self.held)
    }

    /// Whether a stop was completed, or [`StopMatcher::finish`] called.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// Looks at the whole text at once: the first end of any stop, and of those the longest.
    fn reference(text: &str, stops: &[String]) -> (String, Option<String>) {
        for end in 1..=text.len() {
            let ended = stops.iter().filter(|stop| text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some(stop) = ended.max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    fn streamed(pieces: &[&str], stops: &[String]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(&StopStrings::new(stops.iter().cloned()).expect("test stops are legal"));
        let (mut text, mut stop) = (String::new(), None);
        for piece in pieces {
            let out = matcher.push(piece);
            assert!(stop.is_none() || out == Stopped::default(), "nothing may follow a stop");
            text.push_str(&out.text);
            stop = stop.or(out.stop);
        }
        text.push_str(&matcher.finish());
        (text, stop)
    }

    fn check(pieces: &[&str], stops: &[&str], text: &str, stop: Option<&str>) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        assert_eq!(streamed(pieces, &stops), (text.to_owned(), stop.map(ToOwned::to_owned)), "{pieces:?} {stops:?}");
    }

    #[test]
    fn stops_are_found_across_pieces() {
        check(&["Hello <", "|en", "d|> more"], &["<|end|>"], "Hello ", Some("<|end|>"));
        check(&["a", "a", "b"], &["ab"], "a", Some("ab"));
        check(&["abab", "ac"], &["abac"], "ab", Some("abac"));
        check(&["no stop <|en"], &["<|end|>"], "no stop <|en", None);
        check(&["abcd"], &["abcd", "bc"], "a", Some("bc"));
        check(&["xabc"], &["bc", "abc"], "x", Some("abc"));
        check(&["è", "é!"], &["é"], "è", Some("é"));
        check(&["text"], &[], "text", None);
    }

    #[test]
    fn a_possible_beginning_is_kept_back_and_no_more() {
        let mut matcher = StopMatcher::new(&StopStrings::new(["END"]).expect("legal"));
        assert_eq!(matcher.push("xE").text, "x");
        assert_eq!(matcher.push("N").text, "");
        assert_eq!(matcher.push("E").text, "EN");
        assert_eq!(matcher.finish(), "E");
    }

    #[test]
    fn unusable_stops_are_refused() {
        assert!(StopStrings::new([""]).is_err());
        assert!(StopStrings::new(["x".repeat(MAX_STOP_BYTES)]).is_ok());
        assert!(StopStrings::new(["x".repeat(MAX_STOP_BYTES + 1)]).is_err());
        assert!(StopStrings::new((0..MAX_STOPS).map(|i| i.to_string())).is_ok());
        assert!(StopStrings::new((0..=MAX_STOPS).map(|i| i.to_string())).is_err());
        assert_eq!(StopStrings::new(["a", "a"]).expect("legal").as_slice(), ["a"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn any_cut_of_the_text_gives_the_same_answer(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::btree_set("[abé]{1,4}", 0..4),
        ) {
            let stops: Vec<String> = stops.into_iter().collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(streamed(&pieces, &stops), reference(&pieces.concat(), &stops));
        }
    }
}
