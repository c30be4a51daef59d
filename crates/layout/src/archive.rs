//! Writing a layout as a tar: sorted members, no clock, no owner, so that the same artifact is the same archive
//! everywhere.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use futures_util::StreamExt as _;
use mlxctl_artifact::{Descriptor, Index, Reference};
use mlxctl_content::{Error as ContentError, Fetch, Observer, Outcome, Verified, reachable};
use tar::{EntryType, Header};

use crate::Error;
use crate::documents::{Entry, INDEX_FILE, LAYOUT, LAYOUT_FILE};
use crate::folder::{persist, temporary};

/// Two empty blocks end an archive (POSIX, "ustar Interchange Format").
const END: [u8; 1024] = [0; 1024];

/// What a member holds.
enum Content<'a> {
    Folder,
    Document(&'a [u8]),
    Blob(Descriptor),
}

/// Writes the layout of a manifest, of all it needs and refers to, to the file `path`, which appears once it is whole.
pub async fn write_archive(
    source: &dyn Fetch,
    manifest: &Descriptor,
    name: &Reference,
    path: &Path,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let index = Index::of(vec![Entry::listed(manifest, name)]).to_bytes();
    let mut members = BTreeMap::from([
        ("blobs/".to_owned(), Content::Folder),
        (INDEX_FILE.to_owned(), Content::Document(&index)),
        (LAYOUT_FILE.to_owned(), Content::Document(LAYOUT)),
    ]);
    for node in reachable(source, manifest, observer).await? {
        let folder = format!("blobs/{}/", node.digest.algorithm().name());
        members.insert(format!("{folder}{}", node.digest.hex()), Content::Blob(node));
        members.insert(folder, Content::Folder);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = temporary(folder)?;
    for (member, content) in members {
        match content {
            Content::Folder => write(&mut file, path, &header(EntryType::Directory, &member, 0)?)?,
            Content::Document(bytes) => {
                write(&mut file, path, &header(EntryType::Regular, &member, bytes.len() as u64)?)?;
                write(&mut file, path, bytes)?;
                write(&mut file, path, padding(bytes.len() as u64))?;
            }
            Content::Blob(node) => {
                write(&mut file, path, &header(EntryType::Regular, &member, node.size)?)?;
                file = write_blob(file, path, source, &node, observer).await?;
                write(&mut file, path, padding(node.size))?;
            }
        }
    }
    write(&mut file, path, &END)?;
    persist(file, path)
}

async fn write_blob(
    mut file: tempfile::NamedTempFile,
    path: &Path,
    source: &dyn Fetch,
    node: &Descriptor,
    observer: &dyn Observer,
) -> Result<tempfile::NamedTempFile, Error> {
    observer.started(node);
    let mut verified = Verified::new(node);
    let mut stream = source.fetch(node, 0..node.size).await?;
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        verified.update(&bytes)?;
        let length = bytes.len() as i64;
        let written = tokio::task::spawn_blocking(move || file.write_all(&bytes).map(|()| file)).await;
        let written =
            written.map_err(|error| ContentError::Refused { message: format!("writing was cut off: {error}") })?;
        file = written.map_err(Error::io("write", path))?;
        observer.moved(node, length);
    }
    verified.finish()?;
    observer.finished(node, Outcome::Moved);
    Ok(file)
}

fn write(file: &mut tempfile::NamedTempFile, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    file.write_all(bytes).map_err(Error::io("write", path))
}

fn header(kind: EntryType, path: &str, size: u64) -> Result<[u8; 512], Error> {
    // The GNU form holds sizes above 8 GiB, and every reader knows it.
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    // A sha512 blob's path has 141 bytes, and a header takes 100: such digests do not travel in archives.
    header.set_path(path).map_err(|_| Error::Refused {
        message: format!("{path} is too long for an archive"),
        hint: Some("write a folder instead"),
    })?;
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(*header.as_bytes())
}

fn padding(size: u64) -> &'static [u8] {
    &END[..((512 - size % 512) % 512) as usize]
}
