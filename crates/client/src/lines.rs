//! A stream of bytes cut into lines: how NDJSON arrives.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};

use crate::Error;

/// The longest line that is kept, in bytes; a server that sends a longer one is cut off.
const MAX_LINE_BYTES: usize = 16 << 20;

/// The lines of a stream, without their ends; empty ones are passed over.
pub(crate) fn lines(
    bytes: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> impl Stream<Item = Result<Vec<u8>, Error>> + Send {
    let state = (Box::pin(bytes), Vec::new(), false);
    stream::unfold(state, |(mut bytes, mut held, mut ended)| async move {
        let mut searched = 0;
        loop {
            if let Some(at) = held[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = held.drain(..=searched + at).collect();
                line.pop();
                searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Some((Ok(line), (bytes, held, ended)));
            }
            searched = held.len();
            if ended || held.len() > MAX_LINE_BYTES {
                let rest = std::mem::take(&mut held);
                return (!rest.trim_ascii().is_empty() && ended).then_some((Ok(rest), (bytes, held, ended)));
            }
            match bytes.next().await {
                Some(Ok(more)) => held.extend_from_slice(&more),
                Some(Err(error)) => return Some((Err(error), (bytes, Vec::new(), true))),
                None => ended = true,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn cut(pieces: &[&'static str]) -> Vec<String> {
        let bytes =
            stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect::<Vec<_>>());
        lines(bytes).map(|line| String::from_utf8(line.unwrap()).unwrap()).collect().await
    }

    #[tokio::test]
    async fn lines_come_whole_however_the_bytes_are_cut() {
        for pieces in [&["a\nbb\n"][..], &["a", "\nb", "b", "\n"], &["a\n\n", "bb"], &["", "a\n", "", "bb", ""]] {
            assert_eq!(cut(pieces).await, ["a", "bb"], "{pieces:?}");
        }
        assert!(cut(&["", "\n", "\n"]).await.is_empty());
    }
}
