//! Against Debian's `docker-registry`: what is pushed comes back, with and without a password.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use mlxctl_artifact::{Descriptor, Digest, LayerKind, Manifest, ModelLayer, Reference, media_type};
use mlxctl_content::{
    CopyOptions, Delete as _, Error, Fetch as _, List as _, Memory, Observer, Outcome, Push as _, Quiet, Resolve as _,
    Tag as _, copy, read_all,
};
use mlxctl_registry::{Credential, Registry, RegistryOptions, RemoteRepository, Secret, Static};
use mlxctl_testkit::registry::{Access, DockerRegistry, PASSWORD, USER, skopeo};

/// A model whose large file holds `size` bytes, none like its neighbour.
fn model(store: &Memory, size: usize) -> Descriptor {
    let weights: Vec<u8> = (0..size as u32).map(|at| (at.wrapping_mul(2654435761) >> 24) as u8).collect();
    let files: [(&str, Vec<u8>); 3] =
        [("model.safetensors", weights), ("config.json", b"{\"a\":1}".to_vec()), ("empty", Vec::new())];
    let layers: Vec<_> = files
        .into_iter()
        .map(|(path, content)| {
            let blob = store.insert(media_type::OCTET_STREAM, content);
            ModelLayer::of_file(LayerKind::Weight, path.parse().unwrap(), &blob)
        })
        .collect();
    let config = store.insert(media_type::MODEL_CONFIG, &b"{}"[..]);
    store.insert(media_type::OCI_MANIFEST, Manifest::of_model(config, &layers, BTreeMap::new()).to_bytes())
}

fn repository(address: &str, name: &str, options: &RegistryOptions) -> RemoteRepository {
    let reference: Reference = format!("{address}/{name}").parse().unwrap();
    Registry::new(reference.registry().unwrap(), options).unwrap().repository(&reference)
}

fn with_password(address: &str, password: &str) -> RegistryOptions {
    let credential = Credential::Basic { user: USER.to_owned(), password: Secret::new(password) };
    let credentials = Arc::new(Static { registry: address.to_owned(), credential });
    RegistryOptions { credentials, ..RegistryOptions::default() }
}

#[derive(Default)]
struct Count {
    bytes: AtomicI64,
    present: AtomicUsize,
}

impl Observer for Count {
    fn moved(&self, _: &Descriptor, bytes: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn finished(&self, _: &Descriptor, outcome: Outcome) {
        if outcome == Outcome::Present {
            self.present.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_model_travels_there_and_back_and_a_second_push_sends_nothing() {
    let Some(server) = DockerRegistry::start(Access::Open) else { return };
    let options = RegistryOptions::default();
    let there = repository(server.address(), "org/deep/pebble", &options);
    let source = Memory::default();
    let root = model(&source, 3_000_000);
    let missing = there.resolve("v1").await.unwrap_err();
    assert!(matches!(&missing, Error::NotFound { what } if what.contains("org/deep/pebble:v1")), "{missing}");

    let count = Count::default();
    let copied = copy(&source, &there, &root, CopyOptions::default(), &count).await.unwrap();
    assert_eq!((copied.moved, copied.present), (5, 0));
    assert_eq!(count.bytes.load(Ordering::Relaxed), copied.moved_bytes as i64);
    there.tag(&root, "v1").await.unwrap();
    there.tag(&root, "Latest").await.unwrap();
    assert_eq!(there.tags().await.unwrap(), ["Latest", "v1"]);
    let found = there.resolve("v1").await.unwrap();
    assert_eq!((found.digest, found.size, found.media_type), (root.digest, root.size, root.media_type.clone()));
    assert_eq!(there.resolve(&root.digest.to_string()).await.unwrap().digest, root.digest);

    let count = Count::default();
    let again = copy(&source, &there, &root, CopyOptions::default(), &count).await.unwrap();
    assert_eq!((again.moved, again.moved_bytes, count.bytes.into_inner(), count.present.into_inner()), (0, 0, 0, 5));

    let back = Memory::default();
    copy(&there, &back, &found_root(&there).await, CopyOptions { jobs: 2 }, &Quiet).await.unwrap();
    let sent = read_all(&source, &root, u64::MAX).await.unwrap();
    assert_eq!(read_all(&back, &root, u64::MAX).await.unwrap(), sent);
    for blob in Manifest::parse(&sent).unwrap().blobs() {
        assert!(back.exists(blob).await.unwrap(), "{}", blob.digest);
    }
}

async fn found_root(there: &RemoteRepository) -> Descriptor {
    there.resolve("v1").await.unwrap()
}

#[tokio::test]
async fn ranges_come_from_the_middle() {
    let Some(server) = DockerRegistry::start(Access::Open) else { return };
    let there = repository(server.address(), "m", &RegistryOptions::default());
    let source = Memory::default();
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let blob = source.insert(media_type::OCTET_STREAM, content.clone());
    there.push(&blob, &source, &Quiet).await.unwrap();
    for range in [0..0, 0..1, 0..100_000, 7..5000, 99_999..100_000, 50_000..50_000] {
        let mut stream = there.fetch(&blob, range.clone()).await.unwrap();
        let mut found = Vec::new();
        while let Some(bytes) = stream.next().await {
            found.extend_from_slice(&bytes.unwrap());
        }
        assert_eq!(found, content[range.start as usize..range.end as usize], "{range:?}");
    }
    assert!(there.fetch(&blob, 5..100_001).await.is_err());
    // The manifest's word about the size is not the registry's.
    let longer = Descriptor::new(media_type::OCTET_STREAM, blob.digest, 100_001);
    let refused = there.fetch(&longer, 0..100_001).await.err().unwrap();
    assert!(matches!(refused, Error::SizeMismatch { found: 100_000, .. }), "{refused}");
    let refused = there.fetch(&longer, 100_000..100_001).await.err().unwrap();
    assert!(matches!(refused, Error::SizeMismatch { .. }), "{refused}");
}

#[tokio::test]
async fn content_that_is_not_what_it_is_called_is_not_stored() {
    let Some(server) = DockerRegistry::start(Access::Open) else { return };
    let there = repository(server.address(), "m", &RegistryOptions::default());
    let source = Memory::default();
    let real = source.insert(media_type::OCTET_STREAM, &b"real"[..]);
    struct Liar;
    #[async_trait::async_trait]
    impl mlxctl_content::Fetch for Liar {
        async fn fetch(&self, _: &Descriptor, _: std::ops::Range<u64>) -> Result<mlxctl_content::ByteStream, Error> {
            Ok(Box::pin(futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"fake"))])))
        }
    }
    let refused = there.push(&real, &Liar, &Quiet).await.unwrap_err();
    assert!(matches!(refused, Error::Remote { status: Some(400), .. }), "{refused}");
    assert!(!there.exists(&real).await.unwrap());
    let short = Descriptor::new(media_type::OCTET_STREAM, real.digest, 5);
    let refused = there.push(&short, &Liar, &Quiet).await.unwrap_err();
    assert!(matches!(refused, Error::SizeMismatch { expected: 5, found: 4, .. }), "{refused}");
    let long = Descriptor::new(media_type::OCTET_STREAM, real.digest, 3);
    let refused = there.push(&long, &Liar, &Quiet).await.unwrap_err();
    assert!(matches!(refused, Error::SizeMismatch { expected: 3, found: 4, .. }), "{refused}");
}

#[tokio::test]
async fn manifests_and_blobs_are_deleted() {
    let Some(server) = DockerRegistry::start(Access::Open) else { return };
    let there = repository(server.address(), "m", &RegistryOptions::default());
    let source = Memory::default();
    let root = model(&source, 10);
    copy(&source, &there, &root, CopyOptions::default(), &Quiet).await.unwrap();
    there.tag(&root, "v1").await.unwrap();
    there.delete(&root.digest).await.unwrap();
    assert!(matches!(there.resolve("v1").await, Err(Error::NotFound { .. })));
    let blob = Descriptor::of(media_type::OCTET_STREAM, b"{\"a\":1}");
    there.delete(&blob.digest).await.unwrap();
    assert!(!there.exists(&blob).await.unwrap());
    assert!(matches!(there.delete(&Digest::sha256_of(b"?")).await, Err(Error::NotFound { .. })));
    assert!(matches!(there.resolve("../x").await, Err(Error::Refused { .. })));
}

#[tokio::test]
async fn a_password_is_shown_where_it_is_asked_for() {
    let Some(server) = DockerRegistry::start(Access::Password) else { return };
    let address = server.address();
    let source = Memory::default();
    let root = model(&source, 100_000);
    let there = repository(address, "m", &with_password(address, PASSWORD));
    copy(&source, &there, &root, CopyOptions::default(), &Quiet).await.unwrap();
    there.tag(&root, "v1").await.unwrap();
    assert_eq!(there.resolve("v1").await.unwrap().digest, root.digest);

    let anonymous = repository(address, "m", &RegistryOptions::default()).resolve("v1").await.unwrap_err();
    let wrong = repository(address, "m", &with_password(address, "guess")).resolve("v1").await.unwrap_err();
    for refused in [anonymous, wrong] {
        assert!(matches!(refused, Error::Remote { status: Some(401), .. }), "{refused}");
        assert!(refused.hint().unwrap().contains(&format!("mlxctl login {address}")));
        assert!(!refused.to_string().contains("guess"));
    }
}

#[tokio::test]
async fn skopeo_reads_what_was_pushed() {
    let Some(server) = DockerRegistry::start(Access::Open) else { return };
    let there = repository(server.address(), "m", &RegistryOptions::default());
    let source = Memory::default();
    let root = model(&source, 100_000);
    copy(&source, &there, &root, CopyOptions::default(), &Quiet).await.unwrap();
    there.tag(&root, "v1").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", folder.path().join("copy").display());
    let from = format!("docker://{}/m:v1", server.address());
    let Some(output) = skopeo(&["copy", "--src-tls-verify=false", &from, &target]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = std::fs::read(folder.path().join("copy/manifest.json")).unwrap();
    assert_eq!(Digest::sha256_of(&manifest), root.digest);
    for blob in Manifest::parse(&manifest).unwrap().blobs() {
        let bytes = std::fs::read(folder.path().join("copy").join(blob.digest.hex())).unwrap();
        assert_eq!(Digest::sha256_of(&bytes), blob.digest);
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named() {
    let Some(server) = DockerRegistry::start_with_tls() else { return };
    let address = server.address();
    let own = vec![server.authority().unwrap().to_vec()];
    let source = Memory::default();
    let blob = source.insert(media_type::OCTET_STREAM, vec![7; 1_000_000]);
    let trusting = RegistryOptions { ca_certificates: own, ..RegistryOptions::default() };
    let careless = RegistryOptions { insecure: true, ..RegistryOptions::default() };
    for options in [trusting, careless] {
        let there = repository(address, "m", &options);
        there.push(&blob, &source, &Quiet).await.unwrap();
        assert_eq!(read_all(&there, &blob, u64::MAX).await.unwrap().len(), 1_000_000);
    }
    let Some(other) = DockerRegistry::start_with_tls() else { return };
    let foreign = vec![other.authority().unwrap().to_vec()];
    let options = RegistryOptions { ca_certificates: foreign, ..RegistryOptions::default() };
    let refused = repository(address, "m", &options).exists(&blob).await.unwrap_err();
    assert!(refused.hint().is_some_and(|hint| hint.contains("--ca-file")), "{refused}");
    // http to a port that speaks TLS.
    let options = RegistryOptions { plain_http: true, ..RegistryOptions::default() };
    let refused = repository(address, "m", &options).resolve("v1").await.unwrap_err();
    assert!(refused.hint().is_some_and(|hint| hint.contains("speaks https")), "{refused}");
}
