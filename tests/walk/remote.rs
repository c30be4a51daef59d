//! A registry without pulling: what is there, and who may look.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use mlxctl_testkit::programs::Home;
use mlxctl_testkit::registry::{Access, DockerRegistry, PASSWORD, USER};
use mlxctl_tests::{PEBBLE, create_pebble};

/// Runs `mlxctl` with a line on stdin; whether it succeeded, and what it said.
fn with_stdin(home: &Home, arguments: &[&str], line: &str) -> (bool, String) {
    let mut child = home.mlxctl(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that refuses before it reads has closed its stdin.
    let _ = writeln!(child.stdin.take().unwrap(), "{line}");
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_registry_is_looked_at_without_pulling() {
    let Some(registry) = DockerRegistry::start(Access::Open) else { return };
    let home = Home::default();
    let digest = create_pebble(&home);
    let repository = format!("{}/org/pebble", registry.address());
    home.run(&["push", PEBBLE, &format!("{repository}:b")]);
    home.run(&["push", PEBBLE, &format!("{repository}:a")]);
    let empty = Home::default();
    assert_eq!(empty.run(&["tags", &repository]), "a\nb");
    let listed: Vec<String> = serde_json::from_str(&empty.run(&["tags", &repository, "--json"])).unwrap();
    assert_eq!(listed, ["a", "b"]);
    let named = format!("{repository}:a");
    let inspected: serde_json::Value = serde_json::from_str(&empty.run(&["inspect", &named, "--json"])).unwrap();
    assert_eq!(inspected["digest"], digest);
    assert!(inspected["parts"].as_array().unwrap().iter().any(|part| part["path"] == "model.safetensors"));
    assert_eq!(empty.run(&["inspect", &named, "--manifest"]), home.run(&["show", PEBBLE, "--manifest"]));
    assert!(empty.run(&["inspect", &named]).contains(&digest));
    assert_eq!(empty.run(&["referrers", &named, "--json"]), "[]");
    assert!(!empty.path().join("store/blobs").exists(), "nothing was pulled");
    let (code, said) = empty.fail(&["tags", &named]);
    assert!(code == 2 && said.contains("hint:"), "{said}");
    let (_, said) = empty.fail(&["inspect", &format!("{repository}:none")]);
    assert!(said.contains("not found"), "{said}");
}

#[test]
fn a_login_is_checked_before_it_is_kept() {
    let Some(registry) = DockerRegistry::start(Access::Password) else { return };
    let home = Home::default();
    create_pebble(&home);
    let login = ["login", registry.address(), "-u", USER, "--password-stdin"];
    let (done, said) = with_stdin(&home, &login, "not-it-4711");
    assert!(!done && said.contains("401") && !said.contains("not-it-4711"), "{said}");
    assert!(!home.path().join("config.json").exists());
    let (done, said) = with_stdin(&home, &login, PASSWORD);
    assert!(done && !said.contains(PASSWORD), "{said}");
    let remote = format!("{}/pebble:1.0.0", registry.address());
    home.run(&["push", PEBBLE, &remote]);
    home.run(&["logout", registry.address()]);
    assert!(!fs::read_to_string(home.path().join("config.json")).unwrap().contains(registry.address()));
    let (_, said) = home.fail(&["pull", &remote, "--as", "other:1"]);
    assert!(said.contains("401"), "{said}");
}

#[test]
fn the_embedded_registry_asks_for_its_password() {
    let server = Home::default();
    let mut command =
        server.mlxctl(&["registry", "serve", "--listen", "127.0.0.1:0", "--user", "ada", "--password-stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "s3cret").unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let address = line.trim().trim_start_matches("http://").to_owned();
    let home = Home::default();
    create_pebble(&home);
    let remote = format!("{address}/pebble:1.0.0");
    let (_, said) = home.fail(&["push", PEBBLE, &remote]);
    assert!(said.contains("401") && said.contains("mlxctl login"), "{said}");
    let (done, said) = with_stdin(&home, &["login", &address, "-u", "ada", "--password-stdin"], "s3cret");
    assert!(done, "{said}");
    home.run(&["push", PEBBLE, &remote, "--limit-rate", "1G"]);
    assert!(home.run(&["tags", &format!("{address}/pebble")]).contains("1.0.0"));
    child.kill().unwrap();
    child.wait().unwrap();
}
