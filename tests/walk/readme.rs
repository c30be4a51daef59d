//! The commands of the README do what it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::process::Command;

use mlxctl_testkit::programs::{Home, programs, workspace};

#[test]
fn the_five_minutes_of_the_readme_work_as_written() {
    let text = fs::read_to_string(workspace().join("README.md")).unwrap();
    let tour = text.split("## Five minutes").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = tour.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines: Vec<&str> = blocks.flat_map(str::lines).filter(|line| line.starts_with("mlxctl ")).collect();
    assert!(lines.len() >= 8, "{lines:?}");

    let (home, office, laptop) = (Home::default(), Home::default(), Home::default());
    let mut registry = None;
    // A port of its own: the default one may be somebody's.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for line in lines {
        let line = line
            .replace("/tmp/office", office.path().to_str().unwrap())
            .replace("/tmp/laptop", laptop.path().to_str().unwrap());
        if line.contains("registry serve") {
            registry = Some(office.registry(&[]));
            continue;
        }
        let address = registry.as_ref().map_or("", |server| server.address());
        let line = line.replace("127.0.0.1:5000", address);
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(workspace()).env("MLXCTL_HOME", home.path()).env("MLX_PORT", &port);
        let path = std::env::join_paths([programs(), "/usr/bin".into(), "/bin".into()]).unwrap();
        let output = shell.env("PATH", path).env("DOCKER_CONFIG", home.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        if line.starts_with("mlxctl run") {
            assert!(String::from_utf8_lossy(&output.stdout).contains("Paris"));
        }
    }
    let started: serde_json::Value =
        serde_json::from_slice(&fs::read(home.path().join("run/mlxserve.json")).unwrap()).unwrap();
    assert!(Command::new("kill").arg(started["pid"].to_string()).status().unwrap().success());
}
