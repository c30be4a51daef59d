//! What the tests need beside Rust and a C compiler: found, or installed, or said to be missing.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::steps::{Result, root, run, target};

/// Whether skipping is a failure.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether a program is on the path.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Installs Debian packages where a program of theirs is missing and we may.
pub(crate) fn debian(programs: &[(&str, &str)]) -> Result<()> {
    let packages: Vec<&str> =
        programs.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !has("apt-get") || !is_root() {
        return Err(format!("{names}: not here, and only root can install Debian packages (apt-get install {names})"));
    }
    let quiet = |arguments: &[&str]| {
        run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()))
    };
    quiet(&["update", "-qq"])?;
    quiet(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// A virtual environment of Python with the packages that `tests/requirements/NAME.txt` pins, made once and made anew
/// when the list changes; gives its interpreter.
pub(crate) fn python(name: &str) -> Result<PathBuf> {
    let list = root().join("tests/requirements").join(format!("{name}.txt"));
    let wanted = std::fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let folder = target().join("python").join(name);
    let interpreter = folder.join("bin/python");
    let stamp = folder.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(interpreter);
    }
    if !has("python3") {
        return Err("Python 3 is not here".to_owned());
    }
    let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    if let Err(message) = made {
        return Err(format!("{message}; on Debian, `apt-get install python3-venv` adds what is missing"));
    }
    run(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&list))?;
    std::fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(interpreter)
}

/// Go modules that hold the schemas of the specifications, and the folder each goes into.
const SPECIFICATIONS: [(&str, &str); 2] = [
    ("github.com/opencontainers/image-spec@v1.1.1", "image-spec"),
    ("github.com/modelpack/model-spec@v0.0.7", "model-spec"),
];

/// The JSON Schemas of the OCI image specification and of ModelPack, which their projects publish as Go modules: a
/// folder with one subfolder for each.
pub(crate) fn schemas() -> Result<PathBuf> {
    let folder = target().join("specifications");
    for (module, name) in SPECIFICATIONS {
        let kept = folder.join(name);
        if kept.is_dir() {
            continue;
        }
        let cache = target().join("go");
        let mut download = Command::new(go()?);
        download.args(["mod", "download", module]).current_dir(root());
        run(download.env("GOPATH", &cache).env("GOFLAGS", "-modcacherw").env("GO111MODULE", "on"))?;
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let from = cache.join("pkg/mod").join(module).join("schema");
        copy_files(&from, &kept).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    Ok(folder)
}

/// A Go toolchain: the machine's, else the one that PyPI has.
pub(crate) fn go() -> Result<PathBuf> {
    if has("go") {
        return Ok("go".into());
    }
    Ok(python("go")?.with_file_name("go"))
}

/// Copies the files of a folder, under a name that appears when all are there.
fn copy_files(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    let fresh = to.with_extension("part");
    std::fs::create_dir_all(&fresh)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.path().is_file() {
            std::fs::copy(entry.path(), fresh.join(entry.file_name()))?;
        }
    }
    std::fs::rename(fresh, to)
}
