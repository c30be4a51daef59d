//! Walking through a tar archive of strangers: headers are checked before anything they say is believed, and nothing is
//! held in memory but one header and a bounded extension.
//!
//! Headers and extension records are read with the `tar` crate. Its own walk is not used: it reads extensions of any
//! length into memory, and follows sparse maps. What it would unpack somewhere, nothing here does: callers get names,
//! sizes and bytes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;

use mlxctl_artifact::LayerPath;
use tar::{EntryType, Header, PaxExtensions};

use crate::Error;

const BLOCK_BYTES: u64 = 512;
/// The longest extension that is read, in bytes; a path of the longest length any system takes has 4096.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;
/// Extensions in front of one member.
const MAX_EXTENSIONS: usize = 4;
/// Members of one archive.
const MAX_MEMBERS: usize = 200_000;

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path, without `./` in front and `/` behind; empty for the archive's own folder.
    pub path: String,
    /// What it is.
    pub kind: MemberKind,
    /// Bytes of a file.
    pub size: u64,
    /// Where its bytes begin in the archive.
    pub offset: u64,
}

/// What a member is. Devices, pipes and sparse files are refused by the walk itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link, of whatever kind and to wherever: it is never followed.
    Link,
}

/// The members of an archive, one after the other; [`Read`] gives the bytes of the one last named.
pub struct Members<R> {
    input: R,
    name: String,
    skip: fn(&mut R, u64) -> io::Result<()>,
    /// The archive's length where it is known.
    length: Option<u64>,
    position: u64,
    /// Bytes of the present member that were not read yet.
    left: u64,
    padding: u64,
    seen: usize,
}

impl Members<File> {
    /// The members of a file.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let input = File::open(path).map_err(Error::io("open", path))?;
        let meta = input.metadata().map_err(Error::io("read", path))?;
        if !meta.is_file() {
            return Err(Error::NotALayout {
                path: path.to_owned(),
                reason: "it is neither file nor folder".to_owned(),
            });
        }
        let skip = |file: &mut File, bytes: u64| match i64::try_from(bytes) {
            Ok(bytes) => file.seek(SeekFrom::Current(bytes)).map(drop),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        Ok(Self { length: Some(meta.len()), ..Self::new(input, path.display().to_string(), skip) })
    }

    /// The file itself.
    pub fn into_file(self) -> File {
        self.input
    }
}

impl<R: Read> Members<R> {
    /// The members of a stream; `name` is for messages.
    pub fn of_stream(input: R, name: impl Into<String>) -> Self {
        Self::new(input, name.into(), |input, bytes| {
            let skipped = io::copy(&mut input.by_ref().take(bytes), &mut io::sink())?;
            if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
    }

    fn new(input: R, name: String, skip: fn(&mut R, u64) -> io::Result<()>) -> Self {
        Self { input, name, skip, length: None, position: 0, left: 0, padding: 0, seen: 0 }
    }

    /// The next member; `None` at the archive's end.
    ///
    /// # Errors
    /// [`Error::Archive`] where a header is damaged, a path leads out of its folder, a member claims more bytes than
    /// the archive has, or is neither file, folder nor link.
    pub fn next_member(&mut self) -> Result<Option<Member>, Error> {
        let mut path: Option<Vec<u8>> = None;
        let mut size: Option<u64> = None;
        for _ in 0..=MAX_EXTENSIONS {
            let Some(header) = self.header()? else { return Ok(None) };
            self.seen += 1;
            if self.seen > MAX_MEMBERS {
                return Err(self.wrong(format!("it has more than {MAX_MEMBERS} members")));
            }
            let claimed = header.entry_size().map_err(|error| self.wrong(format!("a size is no number: {error}")))?;
            match header.entry_type() {
                EntryType::GNULongName => {
                    let mut long = self.extension(claimed)?;
                    long.truncate(long.iter().position(|byte| *byte == 0).unwrap_or(long.len()));
                    path = Some(long);
                }
                EntryType::GNULongLink => drop(self.extension(claimed)?),
                kind @ (EntryType::XHeader | EntryType::XGlobalHeader) => {
                    let records = self.extension(claimed)?;
                    for record in PaxExtensions::new(&records) {
                        let record = record.map_err(|error| self.wrong(format!("an extension is damaged: {error}")))?;
                        let key = record.key_bytes();
                        let applies = key == b"path" || key == b"size";
                        if key.starts_with(b"GNU.sparse") || (applies && kind == EntryType::XGlobalHeader) {
                            let key = String::from_utf8_lossy(key).into_owned();
                            return Err(self.wrong(format!("the extension {key:?} is not accepted")));
                        }
                        if key == b"path" {
                            path = Some(record.value_bytes().to_vec());
                        } else if key == b"size" {
                            let text = record.value().ok().and_then(|text| text.parse().ok());
                            size = Some(text.ok_or_else(|| self.wrong("a size is no number".to_owned()))?);
                        }
                    }
                }
                kind => {
                    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
                    return self.member(kind, path, size.unwrap_or(claimed)).map(Some);
                }
            }
        }
        Err(self.wrong(format!("a member has more than {MAX_EXTENSIONS} extensions")))
    }

    fn member(&mut self, kind: EntryType, path: Vec<u8>, size: u64) -> Result<Member, Error> {
        let Ok(path) = String::from_utf8(path) else {
            return Err(self.wrong("the name of a member is not UTF-8".to_owned()));
        };
        let shown: String = path.chars().take(200).collect();
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous if path.ends_with('/') => MemberKind::Folder,
            EntryType::Regular | EntryType::Continuous => MemberKind::File,
            EntryType::Directory => MemberKind::Folder,
            EntryType::Symlink | EntryType::Link => MemberKind::Link,
            EntryType::GNUSparse => return Err(self.wrong(format!("{shown:?} is a sparse file"))),
            _ => return Err(self.wrong(format!("{shown:?} is neither a file, a folder nor a link"))),
        };
        if kind != MemberKind::File && size > 0 {
            return Err(self.wrong(format!("{shown:?} is no file and claims {size} bytes")));
        }
        let mut plain = path.as_str();
        while let Some(rest) = plain.strip_prefix("./") {
            plain = rest;
        }
        let plain = plain.trim_end_matches('/');
        let plain = if plain == "." { "" } else { plain };
        if !(plain.is_empty() && kind == MemberKind::Folder && !path.starts_with('/')) {
            plain.parse::<LayerPath>().map_err(|error| self.wrong(error.to_string()))?;
        }
        let end = self.position.checked_add(size);
        if end.is_none() || self.length.is_some_and(|length| end > Some(length)) {
            let most = self.length.unwrap_or(u64::MAX) - self.position;
            return Err(self.wrong(format!("{shown:?} claims {size} bytes, and {most} are left")));
        }
        (self.left, self.padding) = (size, padding(size));
        Ok(Member { path: plain.to_owned(), kind, size, offset: self.position })
    }

    /// The next header that is not empty; two empty blocks, or the end of the bytes, end the archive.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let rest = self.left.saturating_add(self.padding);
        // The padding behind the last member may be missing.
        let rest = self.length.map_or(rest, |length| rest.min(length - self.position));
        (self.skip)(&mut self.input, rest).map_err(|error| self.wrong(cut_off(&error)))?;
        self.position += rest;
        (self.left, self.padding) = (0, 0);
        let mut block = [0; BLOCK_BYTES as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.wrong("it ends inside a header".to_owned())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.wrong(cut_off(&error))),
            }
        }
        self.position += BLOCK_BYTES;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // The checksum counts its own field as spaces.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(self.wrong(format!("the header at byte {} is damaged", self.position - BLOCK_BYTES)));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, bytes: u64) -> Result<Vec<u8>, Error> {
        if bytes > MAX_EXTENSION_BYTES {
            return Err(self.wrong(format!("an extension claims {bytes} bytes, more than {MAX_EXTENSION_BYTES}")));
        }
        let mut data = vec![0; bytes as usize];
        self.input.read_exact(&mut data).map_err(|error| self.wrong(cut_off(&error)))?;
        self.position += bytes;
        (self.left, self.padding) = (0, padding(bytes));
        Ok(data)
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Archive { archive: self.name.clone(), reason }
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.left.min(buffer.len() as u64) as usize;
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES
}

fn cut_off(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends inside a member".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: EntryType, path: &[u8], size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn file(kind: EntryType, path: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = header(kind, path, data.len() as u64);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn walk(bytes: &[u8]) -> Result<Vec<(String, MemberKind, Vec<u8>)>, Error> {
        let mut members = Members::of_stream(bytes, "test");
        let mut all = Vec::new();
        while let Some(member) = members.next_member()? {
            let mut data = Vec::new();
            members.read_to_end(&mut data).map_err(|error| members.wrong(cut_off(&error)))?;
            all.push((member.path, member.kind, data));
        }
        Ok(all)
    }

    #[test]
    fn members_come_with_their_bytes_whatever_extensions_name_them() {
        let long = format!("{}/file", "x".repeat(150));
        let mut pax = Vec::new();
        let record = format!(" path={long}\n");
        let length = record.len() + 3;
        pax.extend_from_slice(format!("{length}{record}").as_bytes());
        let bytes = [
            file(EntryType::Directory, b"./", b""),
            file(EntryType::Regular, b"./a/b", b"hello"),
            file(EntryType::XHeader, b"pax", &pax),
            file(EntryType::Regular, b"short", b"1"),
            file(EntryType::GNULongName, b"long", [long.as_bytes(), b"\0"].concat().as_slice()),
            file(EntryType::Regular, b"short", b"2"),
            file(EntryType::XGlobalHeader, b"g", b"13 comment=x\n"),
            file(EntryType::Symlink, b"link", b""),
            vec![0; 1024],
            b"never read".to_vec(),
        ]
        .concat();
        let found = walk(&bytes).unwrap();
        let expected = [
            (String::new(), MemberKind::Folder, vec![]),
            ("a/b".to_owned(), MemberKind::File, b"hello".to_vec()),
            (long.clone(), MemberKind::File, b"1".to_vec()),
            (long, MemberKind::File, b"2".to_vec()),
            ("link".to_owned(), MemberKind::Link, vec![]),
        ];
        assert_eq!(found, expected);
        let at = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(at.path(), &bytes).unwrap();
        let mut members = Members::of_file(at.path()).unwrap();
        let mut paths = Vec::new();
        while let Some(member) = members.next_member().unwrap() {
            paths.push(member.path);
        }
        assert_eq!(paths, expected.map(|(path, ..)| path));
    }

    #[test]
    fn a_size_of_more_than_eight_gigabytes_is_read_from_either_extension() {
        let mut pax = file(EntryType::XHeader, b"pax", b"20 size=10000000000\n");
        pax.extend(header(EntryType::Regular, b"big", 0));
        for bytes in [pax, header(EntryType::Regular, b"big", 10_000_000_000)] {
            assert_eq!(Members::of_stream(&bytes[..], "test").next_member().unwrap().unwrap().size, 10_000_000_000);
        }
    }

    #[test]
    fn what_an_archive_may_not_hold_is_refused_with_its_reason() {
        let mut damaged = file(EntryType::Regular, b"a", b"1");
        damaged[100] ^= 1;
        for (bytes, reason) in [
            (file(EntryType::Regular, b"../x", b""), "leads out of the model's folder"),
            (file(EntryType::Regular, b"/etc/passwd", b""), "absolute"),
            (file(EntryType::Regular, b"a/../../x", b""), "leads out"),
            (file(EntryType::Directory, b"/", b""), "empty"),
            (file(EntryType::Regular, b"a\\b", b""), "backslash"),
            (file(EntryType::Regular, b"\xff", b""), "UTF-8"),
            (file(EntryType::Char, b"dev", b""), "neither"),
            (file(EntryType::Fifo, b"pipe", b""), "neither"),
            (file(EntryType::GNUSparse, b"sparse", b""), "sparse"),
            (file(EntryType::XHeader, b"p", b"22 GNU.sparse.major=1\n"), "GNU.sparse"),
            (file(EntryType::XGlobalHeader, b"p", b"10 path=x\n"), "path"),
            (file(EntryType::XHeader, b"p", b"10 size=-\n"), "no number"),
            (file(EntryType::XHeader, b"p", b"rubbish\n"), "damaged"),
            (header(EntryType::XHeader, b"p", 1 << 40), "extension claims"),
            (header(EntryType::GNULongName, b"p", u64::MAX), "extension claims"),
            (header(EntryType::Directory, b"d", 5), "claims 5 bytes"),
            (header(EntryType::Regular, b"huge", u64::MAX), "claims"),
            (header(EntryType::Regular, b"cut", 5), "ends inside"),
            (file(EntryType::GNULongLink, b"p", b"x").repeat(6), "extensions"),
            (damaged, "damaged"),
            (vec![7; 512], "damaged"),
            (vec![7; 100], "ends inside a header"),
        ] {
            let error = walk(&bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "expected {reason:?}: {error}");
        }
    }

    #[test]
    fn a_file_that_claims_more_than_the_archive_has_is_refused_before_it_is_read() {
        let at = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(at.path(), header(EntryType::Regular, b"a", 1 << 50)).unwrap();
        let error = Members::of_file(at.path()).unwrap().next_member().unwrap_err().to_string();
        assert!(error.contains("claims 1125899906842624 bytes, and 0 are left"), "{error}");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(blocks in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300), any::<u64>()), 0..6)) {
            let mut bytes = Vec::new();
            for (kind, data, size) in blocks {
                bytes.extend(file(EntryType::new(kind), b"x", &data));
                bytes.extend(header(EntryType::new(kind), &data[..data.len().min(100)], size));
            }
            let _ = walk(&bytes);
        }
    }
}
