//! The rules of `docs/ARCHITECTURE.md` that can be checked by looking at the workspace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlxctl_testkit::programs::workspace;

/// Package → the packages of the workspace that it depends on, as cargo sees it, tests aside.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let kept = dependencies.filter(|one| one["kind"] != "dev").map(name).filter(|one| ours.contains(one));
            (name(package), kept.collect())
        })
        .collect()
}

#[test]
fn the_dependency_table_is_what_cargo_sees() {
    let text = fs::read_to_string(workspace().join("docs/ARCHITECTURE.md")).unwrap();
    let section = text.split("## The rooms").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut table = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let full = |name: &str| if name == "mlx-sys" { name.to_owned() } else { format!("mlxctl-{name}") };
        let depends = cells[2].split(", ").filter(|name| *name != "–").map(full).collect::<BTreeSet<_>>();
        table.insert(cells[0].trim_matches('`').to_owned(), depends);
    }
    let arrows = arrows();
    for (package, found) in &arrows {
        let written = table.get(package).unwrap_or_else(|| panic!("{package} is missing from docs/ARCHITECTURE.md"));
        assert_eq!(found, written, "{package}: what cargo sees (left) and what the table says (right)");
    }
    assert_eq!(table.keys().collect::<Vec<_>>(), arrows.keys().collect::<Vec<_>>());
}

/// The Rust files of a folder, deeply.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The rooms, by their folders' names.
fn rooms() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(workspace().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path)).collect()
}

/// A file's lines before its tests, with their numbers.
fn shipped(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn only_the_edge_reads_the_environment_and_prints() {
    const EDGE: [&str; 4] = ["cli", "server", "settings", "testkit"];
    let mut found = Vec::new();
    for (room, path) in rooms().into_iter().filter(|(room, _)| !EDGE.contains(&room.as_str())) {
        for file in sources(&path.join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in shipped(&text) {
                let forbidden = ["env::var", "println!(", "eprintln!(", "print!(", "dbg!(", "io::stdout", "io::stderr"];
                if forbidden.iter().any(|word| line.contains(word)) {
                    found.push(format!("{room}: {}:{number}: {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn unsafe_code_is_forbidden_where_the_rules_say() {
    const MAY: [&str; 4] = ["backend-cpu", "backend-mlx", "mlx-sys", "store"];
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for (room, path) in rooms() {
        let text = fs::read_to_string(path.join("Cargo.toml")).unwrap();
        if !MAY.contains(&room.as_str()) {
            assert!(text.contains("[lints]\nworkspace = true"), "{room} does not take the workspace's lints");
        }
    }
    let with_unsafe: Vec<_> = sources(&workspace().join("crates/store/src"))
        .into_iter()
        .filter(|file| shipped(&fs::read_to_string(file).unwrap()).any(|(_, line)| line.contains("unsafe {")))
        .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(with_unsafe, ["map.rs"], "in the store, only the mapping is unsafe");
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    let mut long = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        for file in sources(&workspace().join(folder)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > 600 {
                long.push(format!("{}: {lines}", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "what second idea moved in?\n{}", long.join("\n"));
}
