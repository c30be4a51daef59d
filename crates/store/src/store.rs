//! The store as the other rooms see it: opened once, cloned freely, blocking. [`crate::LocalRepository`] is its
//! asynchronous side.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mlxctl_artifact::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Reference, media_type};

use crate::blob::{Blobs, Verify};
use crate::layout::Layout;
use crate::tag::{self, Change};
use crate::{BlobWriter, Error, Lease, Listing, LocalRepository, graph, ingest, lock};

/// A local store. Cloning is cheap. What was taken in reaches the disk in the system's own time; [`Store::settle`]
/// waits for it.
#[derive(Clone)]
pub struct Store {
    pub(crate) blobs: Arc<Blobs>,
    /// What was ingested or uploaded and has no tag yet.
    pub(crate) session: Lease,
}

/// The locks that a change of names takes, in this order.
pub(crate) struct NameLocks {
    _collector_waits: File,
    _other_names_wait: File,
}

impl Store {
    /// Opens the store in `root`, creating it where there is none. Where the folder cannot be written to, the store
    /// opens for reading.
    ///
    /// # Errors
    /// [`Error::NotAStore`] where the folder holds something else.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let layout = Layout::new(root)?;
        match layout.prepare() {
            Ok(()) => {}
            Err(Error::Io { ref source, .. })
                if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
                    && layout.is_layout()? =>
            {
                return Ok(Self::of(layout, true));
            }
            Err(error) => return Err(error),
        }
        let store = Self::of(layout, false);
        store.mend_index()?;
        Ok(store)
    }

    /// Opens a store for reading alone: nothing in its folder is created or changed.
    ///
    /// # Errors
    /// [`Error::NotAStore`] where the folder holds none.
    pub fn open_read_only(root: &Path) -> Result<Self, Error> {
        let layout = Layout::new(root)?;
        if !layout.is_layout()? {
            let reason = "it has no oci-layout".to_owned();
            return Err(Error::NotAStore { path: layout.root().to_owned(), reason });
        }
        Ok(Self::of(layout, true))
    }

    fn of(layout: Layout, read_only: bool) -> Self {
        let session = Lease::empty(layout.clone(), read_only);
        Self { blobs: Arc::new(Blobs::new(layout, read_only)), session }
    }

    /// The store's folder, absolute.
    pub fn root(&self) -> &Path {
        self.layout().root()
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        self.blobs.read_only
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.blobs.layout
    }

    /// Waits until everything taken in so far is on disk and sealed.
    pub fn settle(&self) {
        self.blobs.settle();
    }

    pub(crate) fn writable(&self) -> Result<(), Error> {
        if self.blobs.read_only {
            return Err(Error::ReadOnly { path: self.root().to_owned() });
        }
        Ok(())
    }

    pub(crate) fn lock_names(&self) -> Result<NameLocks, Error> {
        self.writable()?;
        let collector = lock::shared(&self.layout().lock())?;
        Ok(NameLocks { _collector_waits: collector, _other_names_wait: lock::alone(&self.layout().index_lock())? })
    }

    /// Makes `index.json` again where a change of names was cut off, or where the file was harmed.
    fn mend_index(&self) -> Result<(), Error> {
        let layout = self.layout();
        if !layout.index_stale().exists() && layout.index_is_sound()? {
            return Ok(());
        }
        let _locks = self.lock_names()?;
        Change::begin(layout)?.finish()
    }

    /// Points a name to a manifest that is here, replacing what it pointed to. A reference with a digest pins the
    /// manifest under that digest, without a tag.
    ///
    /// # Errors
    /// [`Error::Missing`] where the manifest is not here; [`Error::Refused`] where the reference has another digest.
    pub fn tag(&self, name: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        self.tag_releasing(name, descriptor, None)
    }

    /// The same, and lets go of the manifest's graph in `lease` too: the name holds it now.
    pub(crate) fn tag_releasing(
        &self,
        name: &Reference,
        node: &Descriptor,
        lease: Option<&Lease>,
    ) -> Result<(), Error> {
        if let Some(digest) = name.digest().filter(|digest| *digest != node.digest) {
            let message = format!("{name} cannot stand for {}: its digest is {digest}", node.digest);
            return Err(Error::Refused { message });
        }
        let locks = self.lock_names()?;
        self.blobs.get(node)?;
        let change = Change::begin(self.layout())?;
        change.write(name, node)?;
        change.finish()?;
        drop(locks);
        let mut graph = BTreeSet::new();
        self.reach(node, &mut graph);
        std::iter::once(&self.session).chain(lease).try_for_each(|lease| lease.release(&graph))
    }

    /// Adds `root` and what can be reached from it. What is missing or unreadable leads nowhere.
    fn reach(&self, root: &Descriptor, seen: &mut BTreeSet<Digest>) {
        let mut left = vec![root.clone()];
        while let Some(node) = left.pop() {
            if seen.insert(node.digest)
                && media_type::is_manifest(&node.media_type)
                && let Ok(content) = self.blobs.read(&node, MAX_MANIFEST_BYTES)
                && let Ok(links) = graph::links(&node.media_type, &content)
            {
                left.extend(links.children.into_iter().chain(links.references));
            }
        }
    }

    /// Removes a name; the content stays until the collector comes.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such name.
    pub fn untag(&self, name: &Reference) -> Result<(), Error> {
        self.remove(std::slice::from_ref(name))
    }

    /// Removes names: all of them, or, where one is not here, none. A reference with a digest removes what pins that
    /// digest: the pin, and the tag it names, or every tag of the repository where it names none.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the first name that is not here.
    pub fn remove(&self, names: &[Reference]) -> Result<(), Error> {
        let _locks = self.lock_names()?;
        let mut doomed = BTreeSet::new();
        for name in names {
            let found = self.names_of(name)?;
            if found.is_empty() {
                return Err(Error::NotFound { what: name.to_string() });
            }
            doomed.extend(found);
        }
        let change = Change::begin(self.layout())?;
        for name in &doomed {
            change.remove(name)?;
        }
        change.finish()
    }

    /// The stored names that `name` removes.
    fn names_of(&self, name: &Reference) -> Result<Vec<Reference>, Error> {
        let layout = self.layout();
        let Some(digest) = name.digest() else {
            // A tag whose file is damaged can be removed too.
            let is_there = !matches!(tag::read(layout, name), Ok(None));
            return Ok(if is_there { vec![tag::canonical(name)?] } else { Vec::new() });
        };
        let names = tag::list(layout, &tag::folder(layout, name))?.names.into_iter();
        let is_meant = |other: &Reference| {
            other.name() == name.name() && (other.tag().is_none() || name.tag().is_none() || other.tag() == name.tag())
        };
        Ok(names.filter(|(other, to)| to.digest == digest && is_meant(other)).map(|(other, _)| other).collect())
    }

    /// The names, sorted: `name:tag`, and `name@digest` for what was pinned without a tag. Files that could not be
    /// read are left out; [`Store::list`] tells of them.
    pub fn tags(&self) -> Result<Vec<(Reference, Descriptor)>, Error> {
        self.list().map(|listing| listing.names)
    }

    /// The names, and what could not be read among them.
    pub fn list(&self) -> Result<Listing, Error> {
        tag::list(self.layout(), &self.layout().manifests())
    }

    /// The repositories that have a name here, `registry/repository` or a local one, sorted.
    pub fn repositories(&self) -> Result<Vec<String>, Error> {
        let names: BTreeSet<String> = self.tags()?.into_iter().map(|(name, _)| name.name()).collect();
        Ok(names.into_iter().collect())
    }

    /// The manifest that a name stands for. A digest wins over the tag, and is found whether or not a name points
    /// to it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] where the digest is a blob's and not a manifest's.
    pub fn resolve(&self, name: &Reference) -> Result<Descriptor, Error> {
        let missing = || Error::NotFound { what: name.to_string() };
        let Some(digest) = name.digest() else {
            return tag::read(self.layout(), name)?.ok_or_else(missing);
        };
        let (descriptor, _) = graph::describe(&self.blobs, &digest)?.ok_or_else(missing)?;
        if !media_type::is_manifest(&descriptor.media_type) {
            let message = format!("{digest} is a blob of {} bytes, not a manifest", descriptor.size);
            return Err(Error::Refused { message });
        }
        Ok(descriptor)
    }

    /// A manifest: the bytes as they are stored, hashed, and what they say.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<(Bytes, Manifest), Error> {
        let content = self.read(descriptor, MAX_MANIFEST_BYTES)?;
        let manifest = Manifest::parse(&content)?;
        Ok((content, manifest))
    }

    /// The whole of a document of at most `limit` bytes, hashed.
    pub fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, Error> {
        self.blobs.read(descriptor, limit)
    }

    /// The bytes of a blob, mapped from the disk and page-aligned. A blob with a valid seal is not read.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::WrongSize`], [`Error::Damaged`].
    pub fn map(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        self.blobs.map(descriptor, Verify::Unsealed)
    }

    /// The same, with a say in when the blob is hashed.
    pub fn map_with(&self, descriptor: &Descriptor, verify: Verify) -> Result<Bytes, Error> {
        self.blobs.map(descriptor, verify)
    }

    /// Whether a blob lies here, without a look at its bytes.
    pub fn contains(&self, digest: &Digest) -> Result<bool, Error> {
        self.size(digest).map(|size| size.is_some())
    }

    /// The size in bytes of a blob that lies here, without a look at its bytes.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.blobs.find(digest)?.map(|blob| blob.stamp.size))
    }

    /// Takes in bytes. Like everything ingested, they are kept from the collector until a tag holds them or the
    /// store is dropped.
    pub fn ingest_bytes(&self, media_type: &str, content: &[u8]) -> Result<Descriptor, Error> {
        let mut writer = self.ingest_writer(media_type)?;
        writer.write_all(content).map_err(Error::io("write", self.root()))?;
        writer.finish()
    }

    /// Takes in a copy of a file.
    pub fn ingest_file(&self, media_type: &str, path: &Path) -> Result<Descriptor, Error> {
        let mut writer = self.ingest_writer(media_type)?;
        ingest::copy_file(path, &mut writer)?;
        writer.finish()
    }

    /// Takes in what is written, in bounded memory.
    pub fn ingest_writer(&self, media_type: &str) -> Result<BlobWriter, Error> {
        BlobWriter::new(self.blobs.clone(), self.session.clone(), media_type)
    }

    /// Keeps content, and what it refers to, from the collector as long as the lease lives.
    pub fn lease(&self, digests: &[Digest]) -> Result<Lease, Error> {
        let lease = Lease::empty(self.layout().clone(), self.is_read_only());
        lease.hold(digests)?;
        Ok(lease)
    }

    /// One repository, as source and target of copies and as what the embedded registry serves. `name` is
    /// `registry/repository` or a local name, without tag and digest. What is pushed through it, or found present, is
    /// kept from the collector until a tag holds it or the handle is dropped.
    pub fn repository(&self, name: &str) -> Result<LocalRepository, Error> {
        let reference: Reference = name.parse()?;
        if reference.tag().is_some() || reference.digest().is_some() {
            let message = format!("{name} names more than a repository: leave the tag and the digest out");
            return Err(Error::Refused { message });
        }
        let lease = Lease::empty(self.layout().clone(), self.is_read_only());
        Ok(LocalRepository::new(self.clone(), reference, lease))
    }
}
