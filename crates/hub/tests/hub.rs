//! The hub's client against a server with the hub's API.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::time::Duration;

use mlxctl_artifact::Digest;
use mlxctl_content::Quiet;
use mlxctl_hub::{Error, Fetched, Hub, HubOptions};
use mlxctl_testkit::hub::HubServer;

const REPOSITORY: &str = "org/Tiny";

fn weights() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

struct Bench {
    server: HubServer,
    cache: tempfile::TempDir,
    commit: String,
}

impl Bench {
    fn new() -> Self {
        let server = HubServer::start();
        let weights = weights();
        let files: [(&str, &[u8], bool); 5] = [
            ("config.json", b"{}", false),
            ("empty.json", b"", false),
            ("model.safetensors", &weights, true),
            ("nested/deep/a b+c.json", b"[1]", false),
            ("tokenizer.json", b"{\"t\":1}", true),
        ];
        let commit = server.commit(REPOSITORY, "main", &files);
        server.with(|state| drop(state.revisions.insert(format!("{REPOSITORY}@refs/pr/1"), commit.clone())));
        Self { server, cache: tempfile::tempdir().unwrap(), commit }
    }

    fn hub(&self, token: Option<&str>) -> Hub {
        let mut options = HubOptions::new(&self.server.endpoint, self.cache.path());
        options.token = token.map(str::to_owned);
        options.pause = Duration::from_millis(1);
        options.tries = 4;
        Hub::new(options).unwrap()
    }

    async fn fetch(&self, hub: &Hub) -> Result<(std::path::PathBuf, Vec<Fetched>), Error> {
        let files = hub.files(REPOSITORY, &self.commit).await?;
        hub.fetch(REPOSITORY, Some("main"), &self.commit, &files, 2, &Quiet).await
    }
}

#[tokio::test]
async fn a_revision_is_pinned_listed_over_pages_and_fetched_into_the_hubs_own_cache() {
    let bench = Bench::new();
    let hub = bench.hub(None);
    for revision in ["main", "refs/pr/1", bench.commit.as_str()] {
        assert_eq!(hub.commit(REPOSITORY, revision).await.unwrap(), bench.commit);
    }
    let files = hub.files(REPOSITORY, &bench.commit).await.unwrap();
    assert_eq!(files.len(), 5, "two pages");
    assert_eq!(files[2].sha256, Some(Digest::sha256_of(&weights())));
    let (folder, fetched) = bench.fetch(&hub).await.unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(folder.join("nested/deep/a b+c.json")).unwrap(), b"[1]");
    assert_eq!(fetched[0].sha256, Digest::sha256_of(b"{}"));
    // Where the hub's own tools look for it.
    let home = bench.cache.path().join("models--org--Tiny");
    assert_eq!(folder, home.join("snapshots").join(&bench.commit));
    assert_eq!(fs::read_to_string(home.join("refs/main")).unwrap(), bench.commit);
    let target = fs::read_link(folder.join("nested/deep/a b+c.json")).unwrap();
    assert!(target.starts_with("../../../../blobs"), "{target:?}");
    assert!(home.join("blobs").join(Digest::sha256_of(&weights()).hex()).is_file());
    let sent = bench.server.with(|state| state.sent);
    bench.fetch(&hub).await.unwrap();
    assert_eq!(bench.server.with(|state| state.sent), sent, "a second fetch moves nothing");
    let asked = bench.server.with(|state| state.seen.len());
    assert_eq!(hub.held(REPOSITORY, &bench.commit, &fetched).await.unwrap(), Some(folder));
    let mut other = fetched.clone();
    other[0].sha256 = Digest::sha256_of(b"other");
    assert_eq!(hub.held(REPOSITORY, &bench.commit, &other).await.unwrap(), None);
    assert_eq!(bench.server.with(|state| state.seen.len()), asked, "nothing is sent");
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped_also_in_another_run() {
    let bench = Bench::new();
    bench.server.with(|state| state.cuts = vec![300_000, 1, 200_000]);
    let hub = bench.hub(None);
    let (folder, _) = bench.fetch(&hub).await.unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
    let seen = bench.server.with(|state| state.seen.clone());
    let starts = seen.iter().filter_map(|line| line.strip_prefix("model.safetensors from ")?.parse().ok());
    let starts: Vec<u32> = starts.collect();
    // How much of a cut answer arrives is the connection's to say.
    assert!(starts.len() == 4 && starts.is_sorted() && starts[3] > 100_000, "{starts:?}");

    let bench = Bench::new();
    bench.server.with(|state| state.cuts = vec![400_000]);
    let mut options = HubOptions::new(&bench.server.endpoint, bench.cache.path());
    options.tries = 1;
    let failed = bench.fetch(&Hub::new(options).unwrap()).await.unwrap_err();
    assert!(matches!(failed, Error::Connection { .. }) && failed.hint().is_some(), "{failed}");
    assert!(!failed.to_string().contains("secret"), "{failed}");
    bench.fetch(&bench.hub(None)).await.unwrap();
    let seen = bench.server.with(|state| state.seen.clone());
    let last = seen.iter().rev().find_map(|line| line.strip_prefix("model.safetensors from "));
    assert!(last.is_some_and(|from| from != "0"), "{last:?}");
}

#[tokio::test]
async fn a_server_without_ranges_and_one_that_fails_now_and_then_are_met() {
    let bench = Bench::new();
    bench.server.with(|state| {
        state.cuts = vec![300_000];
        state.ignores_ranges = true;
        state.failures = vec![503, 429, 500];
    });
    let hub = bench.hub(None);
    let (folder, _) = bench.fetch(&hub).await.unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
    bench.server.with(|state| state.failures = vec![503; 4]);
    let failed = hub.commit(REPOSITORY, "main").await.unwrap_err().to_string();
    assert!(failed.contains("the hub answered 503"), "{failed}");
}

#[tokio::test]
async fn bytes_that_are_not_those_that_the_hub_lists_are_not_kept() {
    for path in ["model.safetensors", "config.json"] {
        let bench = Bench::new();
        bench.server.with(|state| state.flipped = Some(path.to_owned()));
        let hub = bench.hub(None);
        let failed = bench.fetch(&hub).await.unwrap_err();
        assert!(matches!(&failed, Error::Damaged { path: found, .. } if found == path), "{failed}");
        bench.server.with(|state| state.flipped = None);
        bench.fetch(&hub).await.unwrap();
    }
    // Harm done to the cache is seen and mended too.
    let bench = Bench::new();
    let hub = bench.hub(None);
    let (folder, _) = bench.fetch(&hub).await.unwrap();
    let mut harmed = weights();
    harmed[7] ^= 1;
    fs::write(fs::canonicalize(folder.join("model.safetensors")).unwrap(), harmed).unwrap();
    bench.fetch(&hub).await.unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
}

#[tokio::test]
async fn the_token_goes_to_the_hub_alone_and_its_lack_is_told() {
    let bench = Bench::new();
    bench.server.with(|state| state.token = Some("hf_secret".to_owned()));
    // The server's other address answers 418 to anything with a credential.
    bench.fetch(&bench.hub(Some("hf_secret"))).await.unwrap();
    let refused = bench.fetch(&bench.hub(None)).await.unwrap_err();
    assert!(refused.to_string().contains("401: Access to model is restricted"), "{refused}");
    assert!(refused.hint().unwrap().contains("HF_TOKEN"));
    let wrong = bench.fetch(&bench.hub(Some("other_secret"))).await.unwrap_err();
    assert!(!wrong.to_string().contains("other_secret"), "{wrong}");
    let mut options = HubOptions::new("http://hub.example", bench.cache.path());
    options.token = Some("hf_secret".to_owned());
    let refused = Hub::new(options).err().unwrap().to_string();
    assert!(refused.contains("https alone") && !refused.contains("hf_secret"), "{refused}");
}

#[tokio::test]
async fn what_a_hub_says_is_checked_before_it_is_used() {
    let bench = Bench::new();
    let hub = bench.hub(None);
    for path in ["../../.ssh/authorized_keys", "/etc/passwd", "a\\b"] {
        let commit = bench.server.commit("org/evil", "main", &[(path, b"x", false)]);
        let refused = hub.files("org/evil", &commit).await.unwrap_err().to_string();
        assert!(refused.contains("is refused"), "{refused}");
    }
    let commit = bench.server.commit("org/twice", "main", &[("a.json", b"x", false), ("a.json", b"y", false)]);
    assert!(hub.files("org/twice", &commit).await.unwrap_err().to_string().contains("there twice"));
    bench.server.with(|state| drop(state.revisions.insert("org/evil@main".to_owned(), "../../x".to_owned())));
    assert!(matches!(hub.commit("org/evil", "main").await, Err(Error::Answer { .. })));
    let absent = hub.commit("org/absent", "main").await.unwrap_err();
    assert!(matches!(absent, Error::Refused { status: 404, .. }), "{absent}");
    for endpoint in ["", "ftp://x", "huggingface.co", "http://"] {
        assert!(matches!(Hub::new(HubOptions::new(endpoint, "/nowhere")), Err(Error::Endpoint { .. })), "{endpoint}");
    }
}
