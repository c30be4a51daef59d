//! Taking in content whose digest is known only at its end: what the builder writes, and files of other tools.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlxctl_artifact::{Algorithm, Descriptor, Digester};

use crate::blob::Blobs;
use crate::{Error, Lease, file};

/// A blob being written. It becomes visible with [`BlobWriter::finish`]; dropped before, it leaves nothing.
pub struct BlobWriter {
    media_type: String,
    blobs: Arc<Blobs>,
    lease: Lease,
    temporary: PathBuf,
    file: File,
    digester: Digester,
    size: u64,
    buffer: Vec<u8>,
}

impl BlobWriter {
    pub(crate) fn new(blobs: Arc<Blobs>, lease: Lease, media_type: &str) -> Result<Self, Error> {
        if blobs.read_only {
            return Err(Error::ReadOnly { path: blobs.layout.root().to_owned() });
        }
        let temporary = blobs.layout.ingest().join(format!("new-{}", file::random_name()?));
        // The lock tells the collector that its writer lives; until it is taken, the collector is kept waiting.
        let collector_waits = crate::lock::shared(&blobs.layout.lock())?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&temporary);
        let file = file.map_err(Error::io("create", &temporary))?;
        file.lock().map_err(Error::io("lock", &temporary))?;
        drop(collector_waits);
        Ok(Self {
            media_type: media_type.to_owned(),
            blobs,
            lease,
            temporary,
            file,
            digester: Digester::new(Algorithm::Sha256),
            size: 0,
            buffer: Vec::new(),
        })
    }

    /// Ends the blob and gives it its name. Until the store is dropped it is kept from the collector, or until a tag
    /// holds it.
    pub fn finish(mut self) -> Result<Descriptor, Error> {
        self.drain().map_err(Error::io("write", &self.temporary))?;
        let digest = self.digester.clone().finish();
        let descriptor = Descriptor::new(self.media_type.clone(), digest, self.size);
        // The lease comes first, so that the collector never sees the blob without it.
        self.lease.hold(&[digest])?;
        if !self.blobs.holds(&descriptor)? {
            self.blobs.accept(&self.file, &self.temporary, digest)?;
        }
        Ok(descriptor)
    }

    fn drain(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.digester.update(&self.buffer);
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(file::CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() >= file::CHUNK_BYTES {
            self.drain()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a successful finish the file lies elsewhere; one that stays is the collector's.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Copies a file into `writer`.
pub(crate) fn copy_file(path: &Path, writer: &mut BlobWriter) -> Result<(), Error> {
    let mut source = File::open(path).map_err(Error::io("open", path))?;
    if source.metadata().map_err(Error::io("read", path))?.is_dir() {
        return Err(Error::NotAFile { path: path.to_owned(), found: "a folder" });
    }
    let mut buffer = vec![0; file::CHUNK_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                let temporary = writer.temporary.clone();
                writer.write_all(&buffer[..length]).map_err(Error::io("write", &temporary))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
}
