//! A digest is mounted and answers: the programs as a person runs them, and the clients that people have.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use mlxctl_testkit::programs::{Home, python, workspace};
use mlxctl_tests::{PEBBLE, create_pebble};

#[test]
fn a_recipe_becomes_an_answer_pinned_by_digest_in_another_home() {
    let maker = Home::default();
    let digest = create_pebble(&maker);
    let registry_home = Home::default();
    let registry = registry_home.registry(&[]);
    let remote = format!("{}/demo/pebble:1.0.0", registry.address());
    maker.run(&["push", PEBBLE, &remote]);
    let reader = Home::default();
    reader.run(&["pull", &format!("{}/demo/pebble@{digest}", registry.address()), "--as", "pebble:1.0.0"]);
    let pinned = format!("{PEBBLE}@{digest}");
    let mut server = reader.serve(&["--offline", &pinned]);
    assert!(reader.run(&["run", &pinned, "What is the capital of France?"]).contains("Paris"));
    assert!(reader.run(&["ps"]).contains("pebble:1.0.0"));
    reader.run(&["stop", PEBBLE]);
    assert!(!reader.run(&["ps"]).contains("pebble:1.0.0"));
    // A request mounts it again.
    assert!(reader.run(&["run", PEBBLE, "12 + 30 ="]).contains("42"));
    let interrupt = Command::new("kill").args(["-INT", &server.id().to_string()]).status().unwrap();
    assert!(interrupt.success() && server.wait().success(), "it drains and ends without a failure");
    assert!(!reader.path().join("run/mlxserve.json").exists());
}

#[test]
fn the_recipes_own_tests_pass_and_a_wrong_expectation_fails() {
    let home = Home::default();
    create_pebble(&home);
    home.run(&["verify", "--smoke", PEBBLE]);
    let folder = tempfile::tempdir().unwrap();
    let recipe = mlxctl_tests::pebble_in(&folder.path().join("wrong"));
    let text = std::fs::read_to_string(&recipe).unwrap();
    let at = text.find("\ntests:").expect("the recipe has tests");
    let wrong = format!("{}\ntests: [{{prompt: \"Capital of France?\", expect: {{contains: Berlin}}}}]\n", &text[..at]);
    std::fs::write(&recipe, wrong).unwrap();
    home.run(&["create", "wrong:1", "-f", recipe.to_str().unwrap()]);
    let output = home.mlxctl(&["verify", "--smoke", "wrong:1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && said.contains("Berlin"), "{said}");
}

#[test]
fn run_starts_the_daemon_where_none_runs() {
    let home = Home::default();
    create_pebble(&home);
    // A port of its own: the default one may be somebody's.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut run = home.mlxctl(&["run", PEBBLE, "What is the capital of Italy?"]);
    let output = run.env("MLX_PORT", &port).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let started = std::fs::read(home.path().join("run/mlxserve.json")).map(|bytes| {
        let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        file["pid"].as_u64().unwrap().to_string()
    });
    if let Ok(id) = &started {
        assert!(Command::new("kill").arg(id).status().unwrap().success());
    }
    assert!(output.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Rome"));
}

/// Runs one of the scripts in `tests/clients` against a server with the demo model.
fn check_client(script: &str) {
    let Some(python) = python() else { return };
    let home = Home::default();
    create_pebble(&home);
    let server = home.serve(&[PEBBLE]);
    let output = Command::new(python)
        .arg(workspace().join("tests/clients").join(script))
        .args([&format!("http://{}", server.address()), PEBBLE])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_openai_client_is_served() {
    check_client("openai_client.py");
}

#[test]
fn the_ollama_client_is_served() {
    check_client("ollama_client.py");
}
