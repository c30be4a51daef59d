//! Tags as files: `manifests/<registry>/<repository>/_tags/<tag>.json`, each replaced in one step, and the
//! `index.json` that is made from them. Pins without a tag lie beside them in `_digests`.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use mlxctl_artifact::{Descriptor, Digest, Index, Reference, media_type};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::{Error, file};

const TAGS: &str = "_tags";
const DIGESTS: &str = "_digests";
/// The folder of names without a registry. No host is called so: a registry's name has a dot, a port, or is localhost.
const LOCAL: &str = "_local";
const MAX_TAG_BYTES: u64 = 1 << 20;
/// A repository has at most 255 characters, hence 128 components; the registry is one more.
const MAX_DEPTH: usize = 130;

#[derive(Serialize, Deserialize)]
struct Record {
    reference: Reference,
    descriptor: Descriptor,
}

/// A file name for a tag that is unlike every other tag's, on disks that ignore case too: the tag in lower case, and
/// `+` with one bit a character that was upper case (hexadecimal, the first character in the lowest bit).
fn encode(tag: &str) -> String {
    let mut name = tag.to_ascii_lowercase();
    let mut nibbles: Vec<u32> = tag
        .as_bytes()
        .chunks(4)
        .map(|four| four.iter().enumerate().map(|(bit, byte)| u32::from(byte.is_ascii_uppercase()) << bit).sum())
        .collect();
    while nibbles.last() == Some(&0) {
        nibbles.pop();
    }
    if !nibbles.is_empty() {
        name.push('+');
        name.extend(nibbles.into_iter().filter_map(|nibble| char::from_digit(nibble, 16)));
    }
    name
}

/// The folder of a reference's repository. A port's colon and an address's become `+`, which no host name holds.
pub(crate) fn folder(layout: &Layout, name: &Reference) -> PathBuf {
    let registry = name.registry().map_or_else(|| LOCAL.to_owned(), |host| host.replace(':', "+"));
    layout.manifests().join(registry).join(name.repository())
}

/// The file of a reference: its digest's where it has one, else its tag's.
fn path(layout: &Layout, name: &Reference) -> PathBuf {
    let folder = folder(layout, name);
    match name.digest() {
        Some(digest) => folder.join(DIGESTS).join(format!("{}-{}.json", digest.algorithm().name(), digest.hex())),
        None => folder.join(TAGS).join(format!("{}.json", encode(name.tag_or_latest()))),
    }
}

/// The form in which a name is stored: `name:tag`, or `name@digest` without the tag that is a mere remark.
pub(crate) fn canonical(name: &Reference) -> Result<Reference, Error> {
    Ok(match name.digest() {
        Some(digest) => name.name().parse::<Reference>()?.at(digest),
        None => name.with_tag(name.tag_or_latest())?,
    })
}

/// What a name stands for; `None` where it is not here.
pub(crate) fn read(layout: &Layout, name: &Reference) -> Result<Option<Descriptor>, Error> {
    let path = path(layout, name);
    let record = read_record(&path)?;
    match record {
        Some(record) if record.reference != canonical(name)? => Err(misplaced(&path, &record.reference)),
        record => Ok(record.map(|record| record.descriptor)),
    }
}

fn misplaced(path: &Path, name: &Reference) -> Error {
    Error::document(path, format!("it is the file of another name, {name}"))
}

fn read_record(path: &Path) -> Result<Option<Record>, Error> {
    let Some(content) = file::read(path, MAX_TAG_BYTES)? else { return Ok(None) };
    serde_json::from_slice(&content).map(Some).map_err(|error| Error::document(path, format!("not a tag: {error}")))
}

/// The names of a store, and the files among them that could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// Names in order: `name:tag`, and `name@digest` for what was pinned without a tag.
    pub names: Vec<(Reference, Descriptor)>,
    /// One error for each file that is no name.
    pub problems: Vec<Error>,
}

/// Everything under `manifests/`, or under the folder of one repository.
pub(crate) fn list(layout: &Layout, within: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let mut folders = vec![(within.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let holds_names = folder.file_name().is_some_and(|name| name == TAGS || name == DIGESTS);
        for entry in file::entries(&folder)? {
            let path = entry.path();
            if !holds_names {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && depth < MAX_DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if path.extension().is_some_and(|extension| extension == "json") {
                match read_record(&path) {
                    Ok(Some(record)) if self::path(layout, &record.reference) == path => {
                        listing.names.push((record.reference, record.descriptor));
                    }
                    Ok(Some(record)) => listing.problems.push(misplaced(&path, &record.reference)),
                    // Removed since the folder was listed.
                    Ok(None) => {}
                    Err(error) => listing.problems.push(error),
                }
            }
        }
    }
    listing.names.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(listing)
}

/// A change of names and of the `index.json` that follows from them. The caller holds both locks.
pub(crate) struct Change<'a> {
    layout: &'a Layout,
}

impl<'a> Change<'a> {
    /// Marks the index as stale until [`Change::finish`], so that a kill in between is mended when the store is opened.
    pub(crate) fn begin(layout: &'a Layout) -> Result<Self, Error> {
        let marker = layout.index_stale();
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&marker);
        opened.map_err(Error::io("create", &marker))?;
        Ok(Self { layout })
    }

    pub(crate) fn write(&self, name: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        let reference = canonical(name)?;
        let path = path(self.layout, &reference);
        let record = Record { reference, descriptor: descriptor.clone() };
        let content = serde_json::to_vec(&record).map_err(|error| Error::document(&path, error))?;
        if content.len() as u64 > MAX_TAG_BYTES {
            let message = format!("the annotations of {} are too long for a tag", descriptor.digest);
            return Err(Error::Refused { message });
        }
        if let Some(folder) = path.parent() {
            file::create_folder(folder)?;
        }
        file::replace(&self.layout.scratch(), &path, &content, true)
    }

    /// Whether the name was there.
    pub(crate) fn remove(&self, name: &Reference) -> Result<bool, Error> {
        let path = path(self.layout, name);
        let removed = file::remove(&path)?;
        // Folders that became empty go too; the first that did not ends it.
        let root = self.layout.manifests();
        for folder in path.ancestors().skip(1).take_while(|folder| **folder != root) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(removed)
    }

    /// Writes `index.json` anew.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let names = list(self.layout, &self.layout.manifests())?.names;
        let (tags, pins): (Vec<_>, Vec<_>) = names.into_iter().partition(|(name, _)| name.digest().is_none());
        let mut seen: BTreeSet<Digest> = tags.iter().map(|(_, node)| node.digest).collect();
        let mut manifests: Vec<Descriptor> =
            tags.into_iter().map(|(name, node)| node.with_annotation(media_type::REF_NAME, name.to_string())).collect();
        manifests.extend(pins.into_iter().map(|(_, node)| node).filter(|node| seen.insert(node.digest)));
        file::replace(&self.layout.scratch(), &self.layout.index(), &Index::of(manifests).to_bytes(), true)?;
        file::remove(&self.layout.index_stale()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_become_file_names() {
        for (tag, name) in [("latest", "latest"), ("v1", "v1"), ("V1", "v1+1"), ("a.B-_C", "a.b-_c+42")] {
            assert_eq!(encode(tag), name);
        }
        assert!(encode(&"A".repeat(128)).len() + ".json".len() < 255);
    }

    #[test]
    fn registries_and_local_names_do_not_meet() {
        let layout = Layout::new(Path::new("/s")).unwrap();
        let check = |name: &str, expected: &str| {
            assert_eq!(path(&layout, &name.parse().unwrap()), Path::new("/s/manifests").join(expected), "{name}");
        };
        check("m", "_local/m/_tags/latest.json");
        check("a/b:V1", "_local/a/b/_tags/v1+1.json");
        check("localhost/m:1", "localhost/m/_tags/1.json");
        check("127.0.0.1:5000/m:1", "127.0.0.1+5000/m/_tags/1.json");
        check("[::1]:5000/m:1", "[++1]+5000/m/_tags/1.json");
        let digest = format!("sha256:{}", "a".repeat(64));
        check(&format!("m:1@{digest}"), &format!("_local/m/_digests/sha256-{}.json", "a".repeat(64)));
    }

    proptest! {
        #[test]
        fn no_two_names_share_a_file(
            a in "([a-z]{1,3}\\.io(:[0-9]{1,2})?/)?[a-z]{1,2}(/[a-z]{1,2})?:[a-bA-B_][a-bA-B.+_-]{0,5}",
            b in "([a-z]{1,3}\\.io(:[0-9]{1,2})?/)?[a-z]{1,2}(/[a-z]{1,2})?:[a-bA-B_][a-bA-B.+_-]{0,5}",
        ) {
            let layout = Layout::new(Path::new("/s")).unwrap();
            if let (Ok(a), Ok(b)) = (a.parse::<Reference>(), b.parse::<Reference>()) {
                let [x, y] = [&a, &b].map(|name| path(&layout, name).to_string_lossy().to_lowercase());
                prop_assert_eq!(a == b, x == y);
            }
        }

        #[test]
        fn tags_that_differ_in_case_alone_get_different_files(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", flip in any::<u128>()) {
            let other: String = tag
                .char_indices()
                .map(|(at, c)| if flip >> at & 1 == 1 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect();
            prop_assert_eq!(tag == other, encode(&tag) == encode(&other));
            prop_assert_eq!(encode(&tag), encode(&tag).to_ascii_lowercase());
        }
    }
}
