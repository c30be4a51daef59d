//! What the end-to-end tests share: the demo model and its recipe, and a look into a store from outside.

use std::path::{Path, PathBuf};

use mlxctl_testkit::programs::{Home, workspace};

/// The demo model's recipe.
pub const RECIPE: &str = "modelspecs/pebble/ModelSpec.yaml";
/// The name that its recipe gives it.
pub const PEBBLE: &str = "pebble:1.0.0";

/// Builds the demo model in a home and gives its digest.
///
/// # Panics
/// Where `create` fails.
pub fn create_pebble(home: &Home) -> String {
    let printed = home.run(&["create", "--quiet", "-f", RECIPE]);
    let (name, digest) = printed.split_once('@').expect("create prints NAME:TAG@DIGEST");
    assert_eq!(name, PEBBLE);
    digest.to_owned()
}

/// Copies a folder of files, following no links.
///
/// # Panics
/// Where the file system fails.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}

/// A copy of the demo model's recipe and weights in a folder of its own.
pub fn pebble_in(folder: &Path) -> PathBuf {
    copy_folder(&workspace().join("modelspecs/pebble"), folder);
    folder.join("ModelSpec.yaml")
}

/// The file of a blob in a home's store.
pub fn blob(home: &Home, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    home.path().join("store/blobs/sha256").join(hex)
}

/// The digest of the layer that holds a file of the artifact.
///
/// # Panics
/// Where the artifact or the file is not there.
pub fn layer(home: &Home, name: &str, path: &str) -> String {
    let shown: serde_json::Value =
        serde_json::from_str(&home.run(&["show", name, "--json"])).expect("show prints JSON");
    let layers = shown["layers"].as_array().expect("an artifact has layers");
    let layer = layers.iter().find(|layer| layer["path"] == path).expect("the artifact holds the file");
    layer["digest"].as_str().expect("a layer has a digest").to_owned()
}

/// The blobs of a store by their names, sorted.
///
/// # Panics
/// Where the store cannot be read.
pub fn blobs(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("blobs/sha256")).expect("the store has blobs");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
