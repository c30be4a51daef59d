//! Upload sessions of the embedded registry: `uploads/<id>/data`, whose length is the session's offset.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use mlxctl_artifact::{Descriptor, Digest, Digester, media_type};
use mlxctl_content::{ByteStream, Error as ContentError, Uploads};

use crate::{Error, LocalRepository, file, lock, sink};

const DATA: &str = "data";
/// Names the repository that opened the session: no other may go on with it.
const OWNER: &str = "repository";
const MAX_OWNER_BYTES: u64 = 1024;

impl LocalRepository {
    fn not_found(session: &str) -> Error {
        // A foreign text is not repeated in full.
        Error::NotFound { what: format!("upload session {}", session.chars().take(40).collect::<String>()) }
    }

    /// The folder of a session of this repository.
    fn session(&self, id: &str) -> Result<PathBuf, Error> {
        let is_ours = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_ours {
            return Err(Self::not_found(id));
        }
        let folder = self.store.layout().uploads().join(id);
        match file::read(&folder.join(OWNER), MAX_OWNER_BYTES)? {
            Some(owner) if owner == self.name().into_bytes() => Ok(folder),
            _ => Err(Self::not_found(id)),
        }
    }

    /// The session's data for its one writer.
    fn claim(&self, id: &str) -> Result<Session, Error> {
        let folder = self.session(id)?;
        let path = folder.join(DATA);
        let data = OpenOptions::new().read(true).append(true).open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Self::not_found(id),
            _ => Error::io("open", &path)(error),
        })?;
        let data = lock::try_opened(data, &path)?.ok_or_else(|| Error::Refused {
            message: format!("upload session {id} is being written to by another request; try again when it is done"),
        })?;
        let length = length(&data, &path)?;
        Ok(Session { folder, path, data, length })
    }
}

fn length(data: &File, path: &Path) -> Result<u64, Error> {
    Ok(data.metadata().map_err(Error::io("read", path))?.len())
}

/// A session under lock.
struct Session {
    folder: PathBuf,
    path: PathBuf,
    data: File,
    length: u64,
}

impl Session {
    fn append(&mut self, piece: &[u8]) -> Result<(), ContentError> {
        self.data.write_all(piece).map_err(Error::io("write", &self.path))?;
        self.length += piece.len() as u64;
        Ok(())
    }
}

/// Removes a session's folder. The caller holds its lock.
pub(crate) fn discard(folder: &Path) -> Result<(), Error> {
    for name in [OWNER, DATA] {
        file::remove(&folder.join(name))?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", folder)),
    }
}

/// The lock of a session that nobody writes to; `None` where somebody does, or where it has no data yet.
pub(crate) fn try_claim(folder: &Path) -> Result<Option<File>, Error> {
    let path = folder.join(DATA);
    file::open(&path)?.map_or(Ok(None), |data| lock::try_opened(data, &path))
}

#[async_trait]
impl Uploads for LocalRepository {
    async fn begin(&self) -> Result<String, ContentError> {
        self.blocking(|this| {
            this.store.writable()?;
            let id = file::random_name()?;
            let folder = this.store.layout().uploads().join(&id);
            file::create_folder(&folder)?;
            for (name, content) in [(DATA, String::new()), (OWNER, this.name())] {
                let path = folder.join(name);
                fs::write(&path, content).map_err(Error::io("write", &path))?;
            }
            Ok(id)
        })
        .await
    }

    async fn offset(&self, session: &str) -> Result<u64, ContentError> {
        let id = session.to_owned();
        self.blocking(move |this| {
            let path = this.session(&id)?.join(DATA);
            let data = file::open(&path)?.ok_or_else(|| Self::not_found(&id))?;
            length(&data, &path)
        })
        .await
    }

    async fn append(&self, session: &str, at: u64, bytes: ByteStream) -> Result<u64, ContentError> {
        let id = session.to_owned();
        let claimed = self
            .blocking(move |this| {
                let session = this.claim(&id)?;
                if session.length != at {
                    let message = format!("upload session {id} goes on at byte {}, not at {at}", session.length);
                    return Err(Error::Refused { message });
                }
                Ok(session)
            })
            .await?;
        let (claimed, arrived) = sink::drain(bytes, claimed, Session::append, &|_| ()).await?;
        arrived.map(|()| claimed.length)
    }

    /// On a mismatch the session and its bytes are dropped.
    async fn commit(&self, session: &str, digest: &Digest) -> Result<Descriptor, ContentError> {
        let (id, digest) = (session.to_owned(), *digest);
        self.blocking(move |this| {
            let mut session = this.claim(&id)?;
            session.data.rewind().map_err(Error::io("read", &session.path))?;
            let digester = Digester::new(digest.algorithm());
            let (found, bytes) = file::hash(&mut session.data, &session.path, digester, |_| ())?;
            if found != digest {
                discard(&session.folder)?;
                let found = Box::new(found);
                return Err(Error::Damaged { digest, path: session.path, bytes, found });
            }
            let descriptor = Descriptor::new(media_type::OCTET_STREAM, digest, bytes);
            // A client sends its manifest in another request, for which another handle may be made.
            this.store.session.hold(&[digest])?;
            if !this.store.blobs.holds(&descriptor)? {
                this.store.blobs.accept(&session.data, &session.path, digest)?;
            }
            discard(&session.folder)?;
            Ok(descriptor)
        })
        .await
    }

    async fn cancel(&self, session: &str) -> Result<(), ContentError> {
        let id = session.to_owned();
        self.blocking(move |this| discard(&this.claim(&id)?.folder)).await
    }
}
