//! A layout as source of copies: a folder, or a tar that is read in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use mlxctl_artifact::{Descriptor, Digest, MAX_MANIFEST_BYTES};
use mlxctl_content::{ByteStream, Error as ContentError, Fetch, List, Resolve};

use crate::documents::{self, Entry, INDEX_FILE, LAYOUT_FILE, MAX_LAYOUT_BYTES};
use crate::{Error, MemberKind, Members};

/// How much is read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// A layout that somebody wrote. Its bytes are not verified here: a copy's target does that.
pub struct Layout {
    path: PathBuf,
    place: Place,
    entries: Vec<Entry>,
}

enum Place {
    Folder,
    /// The archive, and where in it each file of the layout lies.
    Archive(Arc<File>, BTreeMap<String, Range<u64>>),
}

/// A stretch of a file.
struct Stretch {
    file: Arc<File>,
    path: PathBuf,
    range: Range<u64>,
}

impl Layout {
    /// Opens the layout in a folder, or in a tar that is not compressed.
    ///
    /// # Errors
    /// [`Error::NotALayout`] where it is something else; [`Error::Archive`] where the tar holds links, two files of
    /// one name, paths that leave it, or claims what it does not have.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(Error::io("read", path))?;
        let place = if meta.is_dir() { Place::Folder } else { archive(path)? };
        let mut layout = Self { path: path.to_owned(), place, entries: Vec::new() };
        documents::check_layout(&layout.document(LAYOUT_FILE, MAX_LAYOUT_BYTES)?, path)?;
        layout.entries = documents::entries(&layout.document(INDEX_FILE, MAX_MANIFEST_BYTES)?)?;
        Ok(layout)
    }

    /// What its index lists, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A file of the layout; `None` where there is none.
    fn find(&self, name: &str) -> Result<Option<Stretch>, Error> {
        match &self.place {
            Place::Archive(file, files) => Ok(files.get(name).map(|range| Stretch {
                file: file.clone(),
                path: self.path.clone(),
                range: range.clone(),
            })),
            Place::Folder => {
                let path = self.path.join(name);
                let meta = match std::fs::metadata(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    meta => meta.map_err(Error::io("read", &path))?,
                };
                if !meta.is_file() {
                    let reason = format!("{name} is no file");
                    return Err(Error::NotALayout { path: self.path.clone(), reason });
                }
                let file = Arc::new(File::open(&path).map_err(Error::io("open", &path))?);
                Ok(Some(Stretch { file, path, range: 0..meta.len() }))
            }
        }
    }

    fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let not = |reason: String| Error::NotALayout { path: self.path.clone(), reason };
        let found = self.find(name)?.ok_or_else(|| not(format!("it has no {name}")))?;
        let bytes = found.range.end - found.range.start;
        if bytes > limit {
            return Err(not(format!("{name} has {bytes} bytes, more than the {limit} allowed")));
        }
        found.read(0..bytes)
    }

    fn blob(&self, digest: &Digest) -> Result<Stretch, ContentError> {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let missing = || ContentError::NotFound { what: format!("blob {digest} in {}", self.path.display()) };
        self.find(&name)?.ok_or_else(missing)
    }
}

impl Stretch {
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let mut piece = vec![0; (range.end - range.start) as usize];
        let read = self.file.read_exact_at(&mut piece, self.range.start + range.start);
        read.map_err(Error::io("read", &self.path))?;
        Ok(piece)
    }
}

/// Where the files of a layout lie in a tar.
fn archive(path: &Path) -> Result<Place, Error> {
    let mut start = [0; 4];
    let opened = File::open(path).map_err(Error::io("open", path))?;
    if opened.read_at(&mut start, 0).is_ok_and(|count| count == 4)
        && (start[..2] == [0x1F, 0x8B] || start == *b"\x28\xB5\x2F\xFD")
    {
        let reason = "it is compressed, and a layout is read in place: decompress it first".to_owned();
        return Err(Error::NotALayout { path: path.to_owned(), reason });
    }
    let wrong = |reason: String| Error::Archive { archive: path.display().to_string(), reason };
    let mut members = Members::of_file(path)?;
    let mut files = BTreeMap::new();
    while let Some(member) = members.next_member()? {
        match member.kind {
            MemberKind::Folder => {}
            MemberKind::Link => return Err(wrong(format!("{:?} is a link; a layout holds files", member.path))),
            MemberKind::File => {
                let range = member.offset..member.offset + member.size;
                if files.insert(member.path.clone(), range).is_some() {
                    return Err(wrong(format!("{:?} is there twice", member.path)));
                }
            }
        }
    }
    Ok(Place::Archive(Arc::new(members.into_file()), files))
}

#[async_trait]
impl Fetch for Layout {
    async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, ContentError> {
        let found = self.blob(&descriptor.digest)?;
        let size = found.range.end - found.range.start;
        if size != descriptor.size || range.start > range.end || range.end > size {
            let (digest, expected) = (descriptor.digest, descriptor.size.max(range.end));
            return Err(ContentError::SizeMismatch { digest, expected, found: size });
        }
        let found = Arc::new(found);
        Ok(Box::pin(stream::try_unfold((found, range), |(found, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let piece = range.start..range.end.min(range.start + PIECE_BYTES);
            let rest = piece.end..range.end;
            let reader = found.clone();
            let read = tokio::task::spawn_blocking(move || reader.read(piece)).await;
            let bytes =
                read.map_err(|error| ContentError::Refused { message: format!("reading was cut off: {error}") })??;
            Ok(Some((Bytes::from(bytes), (found, rest))))
        })))
    }
}

#[async_trait]
impl Resolve for Layout {
    /// A tag as the index has it, a whole name, or a digest.
    async fn resolve(&self, name: &str) -> Result<Descriptor, ContentError> {
        let is_meant = |entry: &&Entry| {
            entry.reference.as_deref() == Some(name)
                || entry.manifest.digest.to_string() == name
                || entry.name.as_ref().is_some_and(|full| full.to_string() == name)
        };
        let missing = || ContentError::NotFound { what: format!("{name} in {}", self.path.display()) };
        Ok(self.entries.iter().find(is_meant).ok_or_else(missing)?.manifest.clone())
    }
}

#[async_trait]
impl List for Layout {
    async fn tags(&self) -> Result<Vec<String>, ContentError> {
        let mut tags: Vec<String> = self.entries.iter().filter_map(|entry| entry.reference.clone()).collect();
        tags.sort();
        tags.dedup();
        Ok(tags)
    }
}
