//! The one graph copy: a manifest and everything below it, from any source to any target.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mlxctl_artifact::{Descriptor, Index, MAX_MANIFEST_BYTES, Manifest, media_type};

use crate::{ByteStream, Error, Fetch, Observer, Outcome, Push, read_all};

/// Indexes that list indexes, models that refer to drafts that refer to drafts … are cut off here.
const MAX_DEPTH: usize = 4;
/// The most blobs of one manifest; a 1 TB model in 100 MB files has 10,000.
const MAX_CHILDREN: usize = 65_536;

/// How a copy goes about its work.
#[derive(Debug, Clone, Copy)]
pub struct CopyOptions {
    /// Blobs on their way at once; at least one.
    pub jobs: usize,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { jobs: 4 }
    }
}

/// What a copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs and manifests that were moved.
    pub moved: usize,
    /// Their bytes.
    pub moved_bytes: u64,
    /// Blobs and manifests that were there already.
    pub present: usize,
}

impl Copied {
    fn add(mut self, other: Self) -> Self {
        self.moved += other.moved;
        self.moved_bytes += other.moved_bytes;
        self.present += other.present;
        self
    }
}

/// Moves the content that `root` stands for, and all it refers to, from `source` to `target`: children before their
/// parents, so that a manifest at the target never points to what is not there. A manifest whose layers name paths
/// outside the model's folder is refused before any layer moves. A draft model or an adapter that the source lacks is
/// told to the observer and left out: the model does without.
pub async fn copy(
    source: &dyn Fetch,
    target: &dyn Push,
    root: &Descriptor,
    options: CopyOptions,
    observer: &dyn Observer,
) -> Result<Copied, Error> {
    Walk { source, target, jobs: options.jobs.max(1), observer }.node(root.clone(), MAX_DEPTH).await
}

struct Walk<'a> {
    source: &'a dyn Fetch,
    target: &'a dyn Push,
    jobs: usize,
    observer: &'a dyn Observer,
}

impl Walk<'_> {
    /// Boxed, because an index walks into manifests.
    fn node(&self, node: Descriptor, depth: usize) -> Pin<Box<dyn Future<Output = Result<Copied, Error>> + Send + '_>> {
        Box::pin(async move {
            if !media_type::is_manifest(&node.media_type) {
                return self.content(&node, self.source).await;
            }
            if depth == 0 {
                return Err(too_deep(&node));
            }
            let bytes = read_all(self.source, &node, MAX_MANIFEST_BYTES).await?;
            let mut links = links(&node, &bytes)?;
            links.children.extend(present(self.source, links.references, &node, self.observer).await?);
            let below = stream::iter(links.children.into_iter().map(|child| self.node(child, depth - 1)))
                .buffer_unordered(self.jobs)
                .try_fold(Copied::default(), |sum, one| async move { Ok(sum.add(one)) })
                .await?;
            Ok(below.add(self.content(&node, &InHand(bytes)).await?))
        })
    }

    async fn content(&self, node: &Descriptor, source: &dyn Fetch) -> Result<Copied, Error> {
        self.observer.started(node);
        if self.target.exists(node).await? {
            self.observer.finished(node, Outcome::Present);
            return Ok(Copied { present: 1, ..Copied::default() });
        }
        self.target.push(node, source, self.observer).await?;
        self.observer.finished(node, Outcome::Moved);
        Ok(Copied { moved: 1, moved_bytes: node.size, present: 0 })
    }
}

/// What `root` stands for and all it refers to, each digest once, parents before their children: what [`copy`] would
/// move. Only manifests are read.
pub async fn reachable(
    source: &dyn Fetch,
    root: &Descriptor,
    observer: &dyn Observer,
) -> Result<Vec<Descriptor>, Error> {
    let mut found: Vec<Descriptor> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut left = VecDeque::from([(root.clone(), MAX_DEPTH)]);
    while let Some((node, depth)) = left.pop_front() {
        if !seen.insert(node.digest) {
            continue;
        }
        if media_type::is_manifest(&node.media_type) {
            if depth == 0 {
                return Err(too_deep(&node));
            }
            let bytes = read_all(source, &node, MAX_MANIFEST_BYTES).await?;
            let mut links = links(&node, &bytes)?;
            links.children.extend(present(source, links.references, &node, observer).await?);
            left.extend(links.children.into_iter().map(|child| (child, depth - 1)));
        }
        found.push(node);
    }
    Ok(found)
}

fn too_deep(node: &Descriptor) -> Error {
    Error::Refused { message: format!("{} lies more than {MAX_DEPTH} manifests deep", node.digest) }
}

/// What a manifest or an index refers to, each digest once.
struct Links {
    /// What it is made of.
    children: Vec<Descriptor>,
    /// Manifests that it can do without.
    references: Vec<Descriptor>,
}

fn links(node: &Descriptor, bytes: &[u8]) -> Result<Links, Error> {
    let document = |source| Error::Document { what: format!("manifest {}", node.digest), source };
    let mut links = if media_type::is_index(&node.media_type) {
        Links { children: Index::parse(bytes).map_err(document)?.manifests, references: Vec::new() }
    } else {
        let manifest = Manifest::parse(bytes).map_err(document)?;
        manifest.model_layers().map_err(document)?;
        let references = manifest.references().map_err(document)?;
        Links { children: manifest.blobs().cloned().collect(), references }
    };
    let count = links.children.len();
    if count > MAX_CHILDREN {
        let message = format!("{} lists {count} blobs, more than the {MAX_CHILDREN} allowed", node.digest);
        return Err(Error::Refused { message });
    }
    let mut seen = BTreeSet::new();
    links.children.retain(|child| seen.insert(child.digest));
    links.references.retain(|child| seen.insert(child.digest));
    Ok(links)
}

/// Those of the references of `node` that the source has.
async fn present(
    source: &dyn Fetch,
    references: Vec<Descriptor>,
    node: &Descriptor,
    observer: &dyn Observer,
) -> Result<Vec<Descriptor>, Error> {
    let mut present = Vec::new();
    for reference in references {
        match read_all(source, &reference, MAX_MANIFEST_BYTES).await {
            Ok(_) => present.push(reference),
            Err(Error::NotFound { .. }) => observer.notice(&format!(
                "{} refers to {} (a draft model or an adapter), which is not here; it is left out",
                node.digest, reference.digest
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(present)
}

/// A manifest that was read already, as the source of its own push.
struct InHand(Bytes);

#[async_trait]
impl Fetch for InHand {
    async fn fetch(&self, _: &Descriptor, range: std::ops::Range<u64>) -> Result<ByteStream, Error> {
        let bytes = self.0.slice(range.start as usize..range.end as usize);
        Ok(Box::pin(stream::iter([Ok(bytes)])))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mlxctl_artifact::{LayerKind, ModelLayer};

    use super::*;
    use crate::{Memory, Quiet};

    fn model(store: &Memory, files: &[(&str, &[u8])]) -> Descriptor {
        let layers: Vec<_> = files
            .iter()
            .map(|(path, content)| {
                let blob = store.insert(media_type::OCTET_STREAM, content.to_vec());
                ModelLayer::of_file(LayerKind::Weight, path.parse().unwrap(), &blob)
            })
            .collect();
        let config = store.insert(media_type::MODEL_CONFIG, &b"{}"[..]);
        store.insert(media_type::OCI_MANIFEST, Manifest::of_model(config, &layers, BTreeMap::new()).to_bytes())
    }

    #[tokio::test]
    async fn a_graph_arrives_whole_and_a_second_copy_moves_nothing() {
        let (source, target) = (Memory::default(), Memory::default());
        let one = model(&source, &[("a", b"A"), ("b", b"B"), ("c", b"A")]);
        let two = model(&source, &[("a", b"A"), ("d", b"D")]);
        let root = source.insert(media_type::OCI_INDEX, Index::of(vec![one.clone(), two.clone()]).to_bytes());
        let copied = copy(&source, &target, &root, CopyOptions::default(), &Quiet).await.unwrap();
        assert!(copied.moved >= 7, "{copied:?}");
        for node in [&one, &two, &root] {
            assert!(target.exists(node).await.unwrap());
        }
        let again = copy(&source, &target, &root, CopyOptions { jobs: 0 }, &Quiet).await.unwrap();
        assert_eq!((again.moved, again.moved_bytes), (0, 0));
    }

    #[tokio::test]
    async fn a_draft_comes_along_and_one_that_is_not_there_is_left_out() {
        let (source, target) = (Memory::default(), Memory::default());
        let draft = model(&source, &[("a", b"draft")]);
        let absent = Descriptor::of(media_type::OCI_MANIFEST, b"never made");
        let annotation = mlxctl_artifact::references_annotation([draft.clone(), absent.clone()]);
        let config = source.insert(media_type::MODEL_CONFIG, &b"{}"[..]);
        let annotations = BTreeMap::from([(media_type::REFERENCES.to_owned(), annotation)]);
        let manifest = Manifest::of_model(config, &[], annotations);
        let root = source.insert(media_type::OCI_MANIFEST, manifest.to_bytes());
        let all = reachable(&source, &root, &Quiet).await.unwrap();
        copy(&source, &target, &root, CopyOptions::default(), &Quiet).await.unwrap();
        for node in [&root, &draft, &Descriptor::of("", b"draft")] {
            assert!(target.exists(node).await.unwrap(), "{node:?}");
            assert_eq!(all.iter().filter(|other| other.digest == node.digest).count(), 1);
        }
        assert!(!target.exists(&absent).await.unwrap());
        assert_eq!((all.len(), all[0].digest), (4, root.digest));
    }

    #[tokio::test]
    async fn a_missing_child_leaves_no_manifest_behind() {
        let (source, target) = (Memory::default(), Memory::default());
        let config = source.insert(media_type::MODEL_CONFIG, &b"{}"[..]);
        let absent = ModelLayer::of_file(LayerKind::Weight, "a".parse().unwrap(), &Descriptor::of("", b"gone"));
        let manifest = Manifest::of_model(config, &[absent], BTreeMap::new());
        let root = source.insert(media_type::OCI_MANIFEST, manifest.to_bytes());
        let failed = copy(&source, &target, &root, CopyOptions::default(), &Quiet).await;
        assert!(matches!(failed, Err(Error::NotFound { .. })), "{failed:?}");
        assert!(!target.exists(&root).await.unwrap());
    }

    #[tokio::test]
    async fn a_path_that_leaves_the_folder_is_refused_before_its_layers_move() {
        let (source, target) = (Memory::default(), Memory::default());
        let root = model(&source, &[("a", b"A")]);
        let bytes = read_all(&source, &root, MAX_MANIFEST_BYTES).await.unwrap();
        let evil = String::from_utf8(bytes.to_vec()).unwrap().replace("\":\"a\"", "\":\"../../x\"");
        let root = source.insert(media_type::OCI_MANIFEST, evil);
        let refused = copy(&source, &target, &root, CopyOptions::default(), &Quiet).await.unwrap_err();
        assert!(refused.to_string().contains("../../x"), "{refused}");
        assert!(!target.exists(&Descriptor::of("", b"A")).await.unwrap());
    }

    #[tokio::test]
    async fn content_that_is_not_what_its_digest_says_is_refused() {
        struct Liar(Memory);
        #[async_trait]
        impl Fetch for Liar {
            async fn fetch(&self, node: &Descriptor, range: std::ops::Range<u64>) -> Result<ByteStream, Error> {
                if node.size == 1 {
                    return Ok(Box::pin(stream::iter([Ok(Bytes::from_static(b"?"))])));
                }
                self.0.fetch(node, range).await
            }
        }
        let source = Memory::default();
        let root = model(&source, &[("a", b"A")]);
        let failed = copy(&Liar(source), &Memory::default(), &root, CopyOptions::default(), &Quiet).await;
        assert!(matches!(failed, Err(Error::DigestMismatch { .. })), "{failed:?}");
    }
}
