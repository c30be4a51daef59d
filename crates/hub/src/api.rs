//! The hub's API: what commit a revision is, and which files it has.

use futures_util::StreamExt as _;
use mlxctl_artifact::{Digest, LayerPath};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use crate::error::plain;
use crate::{Error, Hub};

/// The longest page of an answer that is read, in bytes: a model's page lists its files, some have thousands.
const MAX_PAGE_BYTES: usize = 32 << 20;
/// The most pages of one listing; a page has a thousand files.
const MAX_PAGES: usize = 200;
/// The most files of a repository.
const MAX_FILES: usize = 100_000;

/// A file of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// Its path within the repository.
    pub path: LayerPath,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest where the hub keeps it outside git (LFS).
    pub sha256: Option<Digest>,
    /// Its git object, 40 hex digits, where it lies in git.
    pub(crate) oid: String,
}

impl HubFile {
    /// The name that the hub's cache has for its bytes.
    pub(crate) fn etag(&self) -> String {
        self.sha256.map_or_else(|| self.oid.clone(), |digest| digest.hex())
    }
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Hub {
    /// The commit that a branch, a tag or a commit of a repository stands for.
    pub async fn commit(&self, repository: &str, revision: &str) -> Result<String, Error> {
        let what = format!("{}@{}", plain(repository), plain(revision));
        let url = self.url(&["api", "models"], repository, &["revision", revision])?;
        let page = self.page(&what, url).await?.0;
        let found: Revision = serde_json::from_slice(&page)
            .map_err(|error| Error::Answer { what: what.clone(), reason: format!("expected a commit: {error}") })?;
        if !is_commit(&found.sha) {
            let reason = format!("{:?} is no commit", plain(&found.sha));
            return Err(Error::Answer { what, reason });
        }
        Ok(found.sha)
    }

    /// The files of a repository at a commit, sorted by path.
    ///
    /// # Errors
    /// [`Error::Artifact`] where a path leads out of the repository.
    pub async fn files(&self, repository: &str, commit: &str) -> Result<Vec<HubFile>, Error> {
        let what = format!("the files of {}@{}", plain(repository), plain(commit));
        let wrong = |reason: String| Error::Answer { what: what.clone(), reason };
        let mut next = Some(self.url(&["api", "models"], repository, &["tree", commit])?);
        if let Some(url) = &mut next {
            url.query_pairs_mut().append_pair("recursive", "true");
        }
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { break };
            let (page, link) = self.page(&what, url).await?;
            let entries: Vec<Entry> = serde_json::from_slice(&page).map_err(|error| wrong(error.to_string()))?;
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                files.push(file(entry).map_err(&wrong)?);
            }
            if files.len() > MAX_FILES {
                return Err(wrong(format!("there are more than {MAX_FILES}")));
            }
            next = link;
        }
        if next.is_some() {
            return Err(wrong(format!("the list has more than {MAX_PAGES} pages")));
        }
        files.sort_by(|one: &HubFile, other| one.path.cmp(&other.path));
        if let Some(twice) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(wrong(format!("{} is there twice", twice[0].path)));
        }
        Ok(files)
    }

    /// An address of the hub. Names and revisions become single components, whatever they hold.
    pub(crate) fn url(&self, before: &[&str], repository: &str, after: &[&str]) -> Result<Url, Error> {
        let mut url = self.endpoint.clone();
        let bad = || Error::Endpoint { endpoint: plain(self.endpoint.as_str()), reason: "it takes no path".to_owned() };
        let mut components = url.path_segments_mut().map_err(|()| bad())?;
        components.pop_if_empty().extend(before).extend(repository.split('/')).extend(after);
        drop(components);
        Ok(url)
    }

    /// Asks once, and again where that may help.
    pub(crate) async fn get(&self, what: &str, url: &Url, from: u64) -> Result<Response, Error> {
        let mut request = self.client.get(url.clone());
        if let Some(token) = &self.options.token {
            request = request.bearer_auth(token);
        }
        if from > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await.map_err(|error| Error::connection(what, error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let said = ["x-error-message", "x-error-code"].iter().find_map(|name| response.headers().get(*name));
        let said = said.and_then(|said| said.to_str().ok()).map(|said| format!(": {}", plain(said)));
        Err(Error::Refused { what: what.to_owned(), status: status.as_u16(), message: said.unwrap_or_default() })
    }

    /// How long to wait after the `failures`-th failure in a row; `None` to give up.
    pub(crate) fn pause(&self, failures: u32) -> Option<std::time::Duration> {
        if failures >= self.options.tries.max(1) {
            return None;
        }
        let longest = std::time::Duration::from_secs(20);
        let pause = self.options.pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
        // Many clients that fail together should not come back together.
        let spread = getrandom::u32().unwrap_or(0) as f32 / u32::MAX as f32;
        Some(pause.mul_f32(0.5 + spread / 2.0))
    }

    /// A whole page and the address of the next one, which stays at the hub.
    async fn page(&self, what: &str, url: Url) -> Result<(Vec<u8>, Option<Url>), Error> {
        let mut failures = 0;
        loop {
            match self.page_once(what, &url).await {
                Err(error) if error.may_pass() => {
                    failures += 1;
                    let Some(pause) = self.pause(failures) else { return Err(error) };
                    tokio::time::sleep(pause).await;
                }
                answer => return answer,
            }
        }
    }

    async fn page_once(&self, what: &str, url: &Url) -> Result<(Vec<u8>, Option<Url>), Error> {
        let response = self.get(what, url, 0).await?;
        let link = response.headers().get(reqwest::header::LINK).and_then(|link| link.to_str().ok()).and_then(next);
        let next = link.and_then(|link| url.join(link).ok()).filter(|next| next.origin() == self.endpoint.origin());
        let mut body = response.bytes_stream();
        let mut page = Vec::new();
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| Error::connection(what, error))?;
            if page.len() + bytes.len() > MAX_PAGE_BYTES {
                let reason = format!("the answer has more than {MAX_PAGE_BYTES} bytes");
                return Err(Error::Answer { what: what.to_owned(), reason });
            }
            page.extend_from_slice(&bytes);
        }
        Ok((page, next))
    }
}

/// The address with `rel="next"` of a `Link` header.
fn next(link: &str) -> Option<&str> {
    link.split(',').find_map(|one| {
        let (address, parameters) = one.split_once(';')?;
        let is_next = parameters.split(';').any(|parameter| parameter.trim() == "rel=\"next\"");
        is_next.then(|| address.trim().trim_start_matches('<').trim_end_matches('>'))
    })
}

fn file(entry: Entry) -> Result<HubFile, String> {
    let path: LayerPath = entry.path.parse().map_err(|error: mlxctl_artifact::Error| error.to_string())?;
    let (sha256, size) = match &entry.lfs {
        Some(lfs) => {
            let digest = format!("sha256:{}", lfs.oid).parse::<Digest>();
            (Some(digest.map_err(|error| format!("{path}: {error}"))?), lfs.size)
        }
        None if is_commit(&entry.oid) => (None, entry.size),
        None => return Err(format!("{path}: {:?} is no git object", plain(&entry.oid))),
    };
    Ok(HubFile { path, size, sha256, oid: entry.oid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let link = r#"<https://hub/first>; rel="first", <https://hub/a?cursor=b>; rel="next""#;
        assert_eq!(next(link), Some("https://hub/a?cursor=b"));
        for other in ["", "<x>", r#"<x>; rel="last""#, ";;,,"] {
            assert_eq!(next(other), None, "{other}");
        }
    }
}
