//! The one graph copy: a manifest and everything below it, from any source to any target.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mlxctl_artifact::{Descriptor, Index, MAX_MANIFEST_BYTES, Manifest, media_type};

use crate::{ByteStream, Error, Fetch, Observer, Outcome, Push, read_all};

/// An index that lists indexes that list indexes … is cut off here.
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
/// outside the model's folder is refused before any layer moves.
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
                let message = format!("{} lies more than {MAX_DEPTH} indexes deep", node.digest);
                return Err(Error::Refused { message });
            }
            let bytes = read_all(self.source, &node, MAX_MANIFEST_BYTES).await?;
            let children = children(&node, &bytes)?;
            let below = stream::iter(children.into_iter().map(|child| self.node(child, depth - 1)))
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

/// What a manifest or an index refers to, each digest once.
fn children(node: &Descriptor, bytes: &[u8]) -> Result<Vec<Descriptor>, Error> {
    let document = |source| Error::Document { what: format!("manifest {}", node.digest), source };
    let all: Vec<Descriptor> = if media_type::is_index(&node.media_type) {
        Index::parse(bytes).map_err(document)?.manifests
    } else {
        let manifest = Manifest::parse(bytes).map_err(document)?;
        manifest.model_layers().map_err(document)?;
        manifest.blobs().cloned().collect()
    };
    if all.len() > MAX_CHILDREN {
        let message = format!("{} lists {} blobs, more than the {MAX_CHILDREN} allowed", node.digest, all.len());
        return Err(Error::Refused { message });
    }
    let mut seen = BTreeSet::new();
    Ok(all.into_iter().filter(|child| seen.insert(child.digest)).collect())
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
