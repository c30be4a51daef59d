//! From an asynchronous stream into a file: the stream is read on the runtime, hashing and writing happen on one
//! blocking thread, and a short queue between the two bounds what is in memory.

use bytes::Bytes;
use futures_util::StreamExt as _;
use mlxctl_content::{ByteStream, Error as ContentError};
use tokio::sync::mpsc;

use crate::repository::stopped;

/// Pieces between the stream and the disk.
const QUEUE: usize = 8;

/// Feeds the stream to `write` until its end or the first error; `moved` hears of each piece handed over. The state
/// comes back in either case, so that what arrived can be kept. Where the future is dropped, the thread writes what
/// is queued and drops the state.
pub(crate) async fn drain<S: Send + 'static>(
    mut stream: ByteStream,
    mut state: S,
    write: fn(&mut S, &[u8]) -> Result<(), ContentError>,
    moved: &(dyn Fn(u64) + Send + Sync),
) -> Result<(S, Result<(), ContentError>), ContentError> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(piece) = receiver.blocking_recv() {
            if let Err(error) = write(&mut state, &piece) {
                return (state, Err(error));
            }
        }
        (state, Ok(()))
    });
    let mut came = Ok(());
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => {
                let length = piece.len() as u64;
                // A closed queue is a writer that failed; its error is on the way.
                if sender.send(piece).await.is_err() {
                    break;
                }
                moved(length);
            }
            Err(error) => {
                came = Err(error);
                break;
            }
        }
    }
    drop(sender);
    let (state, written) = writer.await.map_err(|failed| stopped(&failed))?;
    Ok((state, written.and(came)))
}
