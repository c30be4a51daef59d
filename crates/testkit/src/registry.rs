//! Real programs of others for the tests of `registry`, `registry-server` and the command line: Debian's
//! `docker-registry` on a free loopback port, and `skopeo`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// The user that a protected registry knows.
pub const USER: &str = "ada";
/// That user's password.
pub const PASSWORD: &str = "s3cret";
/// `USER:bcrypt(PASSWORD)`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "ada:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
/// How long a program may take to come up.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Who may use a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Open,
    /// [`USER`] with [`PASSWORD`], by HTTP's basic authentication.
    Password,
}

/// A running `docker-registry` with an empty, temporary root; it ends when this is dropped.
pub struct DockerRegistry {
    child: Child,
    address: String,
    authority: Option<Vec<u8>>,
    root: TempDir,
}

impl DockerRegistry {
    /// Starts the program on a free loopback port and waits until it listens. `None`, with the reason on stderr,
    /// where the program is not installed.
    ///
    /// # Panics
    /// Where `CI` is set and the program is missing, and where it does not come up.
    pub fn start(access: Access) -> Option<Self> {
        installed("docker-registry").then(|| Self::launch(access, false))
    }

    /// The same, open to everyone, with a certificate for `127.0.0.1` and `localhost` from an authority of its own.
    ///
    /// # Panics
    /// As [`DockerRegistry::start`]; `openssl` has to be there too.
    pub fn start_with_tls() -> Option<Self> {
        (installed("docker-registry") && installed("openssl")).then(|| Self::launch(Access::Open, true))
    }

    fn launch(access: Access, tls: bool) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder for the registry");
        let config = root.path().join("config.yml");
        let auth = if access == Access::Password {
            let users = root.path().join("htpasswd");
            std::fs::write(&users, HTPASSWD).expect("write the users' file");
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display())
        } else {
            String::new()
        };
        let (authority, tls) = if tls {
            let authority = certificates(root.path());
            let (certificate, key) = (root.path().join("server.pem"), root.path().join("server.key"));
            let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
            (Some(authority), tls)
        } else {
            (None, String::new())
        };
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: '127.0.0.1:0', secret: test{tls}}}\n{auth}",
            root.path().join("data").display()
        );
        std::fs::write(&config, text).expect("write the registry's configuration");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start docker-registry");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (tell, told) = mpsc::channel();
        // Reads to the end, so that the program never waits for room in the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address: String =
                        rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
                    let _ = tell.send(address);
                }
            }
        });
        let Ok(address) = told.recv_timeout(START_LIMIT) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("docker-registry did not listen within {} s", START_LIMIT.as_secs());
        };
        Self { child, address, authority, root }
    }

    /// The authority's certificate in PEM form, where the registry speaks TLS.
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.as_deref()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder under which the registry keeps its files.
    pub fn root(&self) -> &Path {
        self.root.path()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `skopeo` with these arguments, without a signature policy. `None`, with the reason on stderr, where it is not
/// installed.
///
/// # Panics
/// Where `CI` is set and the program is missing.
pub fn skopeo(arguments: &[&str]) -> Option<Output> {
    if !installed("skopeo") {
        return None;
    }
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).stdin(Stdio::null()).output();
    Some(output.expect("run skopeo"))
}

/// Makes an authority and, signed by it, `server.pem` with `server.key` for `127.0.0.1` in a folder; returns the
/// authority's certificate. `None`, with the reason on stderr, where `openssl` is not installed.
///
/// # Panics
/// Where `CI` is set and the program is missing, and where it fails.
pub fn server_certificate(folder: &Path) -> Option<Vec<u8>> {
    installed("openssl").then(|| certificates(folder))
}

/// Makes an authority and, signed by it, `server.pem` with `server.key`; returns the authority's certificate.
fn certificates(folder: &Path) -> Vec<u8> {
    let run = |arguments: &str| {
        let output =
            Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().expect("run openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
    std::fs::write(folder.join("names"), names).expect("write the certificate's names");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let name = folder.file_name().unwrap_or_default().display();
    run(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority{name}"));
    run(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    run("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days 2 -out server.pem");
    std::fs::read(folder.join("ca.pem")).expect("read the authority's certificate")
}

/// Whether a program is there. A test that has to do without says so, and in continuous integration fails: a check
/// that is silently left out is no check.
fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        let reason = format!("{program} is not installed (Debian: apt install {program})");
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }
    there
}
