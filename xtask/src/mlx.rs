//! `cargo xtask mlx`: fetches a prebuilt MLX, builds `backend-mlx` against it and runs its parity test.
//!
//! MLX comes from its own Python packages, which hold the C++ library and headers; Python runs pip and nothing else.
//! Everything lands under `target/mlx`: `dist/<variant>` is MLX as pip unpacked it, the rest is Cargo's output, kept
//! apart so that the ordinary build and this one do not rebuild each other's crates.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::{self, Result};

/// The version of MLX that mlx-c 0.7.0, and so `mlx-rs` 0.33, is written against.
const MLX_VERSION: &str = "0.32.2";

/// The version of libclang that is fetched where the machine has none.
const LIBCLANG_VERSION: &str = "18.1.1";

/// SHA-256 of the packages on PyPI, one a platform: pip refuses any other file.
const LIBCLANG_HASHES: &[&str] = &[
    "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b", // manylinux x86-64
    "54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592", // manylinux aarch64
    "69f8eb8f65c279e765ffd28aaa7e9e364c776c17618af8bff22a8df58677ff4f", // musllinux x86-64
    "0b2e143f0fac830156feb56f9231ff8338c20aecfe72b4ffe96f19e5a1dbb69a", // macOS arm64, second build
    "83ce5045d101b669ac38e6da8e58765f12da2d3aafb3b9b98d88b286a60964d8", // macOS arm64
];

/// How the command is called.
const USAGE: &str = "usage: cargo xtask mlx [--variant cpu|cuda-12|cuda-13|metal] [--fetch-only]";

/// One of MLX's prebuilt libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Cpu,
    Cuda12,
    Cuda13,
    Metal,
}

impl Variant {
    const ALL: [Self; 4] = [Self::Cpu, Self::Cuda12, Self::Cuda13, Self::Metal];

    /// The name on the command line and of the folder under `target/mlx/dist`.
    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda12 => "cuda-12",
            Self::Cuda13 => "cuda-13",
            Self::Metal => "metal",
        }
    }

    fn package(self) -> String {
        format!("mlx-{}", self.name())
    }

    /// SHA-256 of the packages of [`MLX_VERSION`] on PyPI, one a platform.
    const fn hashes(self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &[
                "fc5d31b90fc4f457b2f9614ed45651a567d22a6a11a03d114a90a4e10bdd8878", // Linux x86-64
                "d0f94625588b51a878786dd51cec5617894ce586cf3c94645ce1b64e24c27c0b", // Linux aarch64
            ],
            Self::Cuda12 => &[
                "35445ead9724855826f310b9085d57137d0a2c5381cc293cb6d86b03bb4feadf", // Linux x86-64
                "c794c697dcd28e00a51ce8813189ece1a8c62559de7cc5e27803cc591f55df05", // Linux aarch64
            ],
            Self::Cuda13 => &[
                "335094ccd1c0c6dc3e09c8caba207c8180602bacc0c38ba20c1d81e9456ab394", // Linux x86-64
                "49b1a25df9021f3b519a534fd39a32a5cdbf93a1b265a31e59671c2d9fc9f4a2", // Linux aarch64
            ],
            Self::Metal => &[
                "3825fff379dbc107dd3413e564a06caeaa24819910ec49c0439e454c06a1b9b8", // macOS 14
                "55a369250d220b2cf10213a87a2ac1b1a420608c5b35b1df4e7147ac8e32f121", // macOS 15
                "e6abeac9ac5265830c9c1541b6f96e9be37a85c2446763a46ad466c63a3837ab", // macOS 26
            ],
        }
    }

    /// The variants that have a package for `os` and `arch`, the one to take by default first.
    fn of_platform(os: &str, arch: &str) -> &'static [Self] {
        match (os, arch) {
            ("linux", "x86_64" | "aarch64") => &[Self::Cpu, Self::Cuda13, Self::Cuda12],
            ("macos", "aarch64") => &[Self::Metal],
            _ => &[],
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    variant: Variant,
    fetch_only: bool,
}

impl Options {
    fn parse(arguments: &[String], os: &str, arch: &str) -> Result<Self> {
        let possible = Variant::of_platform(os, arch);
        let Some(&default) = possible.first() else {
            return Err(format!(
                "MLX {MLX_VERSION} has no prebuilt library for {os} on {arch}; it has them for Linux on x86_64 and \
                 aarch64, and for macOS on Apple silicon"
            ));
        };
        let mut options = Self { variant: default, fetch_only: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--fetch-only" => options.fetch_only = true,
                "--variant" => {
                    let named = arguments.next().ok_or("--variant wants a name")?;
                    let known = Variant::ALL.into_iter().find(|variant| variant.name() == named);
                    options.variant = known.ok_or_else(|| format!("no variant is named {named:?}\n{USAGE}"))?;
                }
                other => return Err(format!("unexpected argument {other:?}\n{USAGE}")),
            }
        }
        if possible.contains(&options.variant) {
            return Ok(options);
        }
        let names: Vec<_> = possible.iter().map(|variant| variant.name()).collect();
        Err(format!("{} is not made for {os} on {arch}; possible: {}", options.variant.package(), names.join(", ")))
    }
}

/// Fetches what is missing, builds, and runs the parity test; `arguments` are those after `mlx` (see [`USAGE`]).
/// The error names everything that the machine lacks.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments, env::consts::OS, env::consts::ARCH)?;
    // Whole, because the folder is named to programs that run elsewhere.
    let target = std::path::absolute(steps::target().join("mlx"));
    let target = target.map_err(|error| format!("cannot tell where the target folder is: {error}"))?;
    let distribution = target.join("dist").join(options.variant.name());

    let mut missing = Vec::new();
    let compiler = compiler().map_err(|reason| missing.push(reason)).ok();
    let libclang = libclang();
    let fetched = is_fetched(&distribution, options.variant);
    let pip = if fetched && libclang.is_some() {
        None
    } else {
        Pip::find(&target).map_err(|reason| missing.push(reason)).ok()
    };
    let Some(compiler) = compiler.filter(|_| missing.is_empty()) else {
        return Err(format!("MLX cannot be built here:\n  - {}", missing.join("\n  - ")));
    };

    if let Some(pip) = pip.as_ref().filter(|_| !fetched) {
        fetch_mlx(pip, &distribution, options.variant)?;
    }
    let libclang = match (libclang, &pip) {
        (None, Some(pip)) => Some(fetch_libclang(pip, &target.join("dist/libclang"))?),
        (found, _) => found,
    };
    if options.fetch_only {
        println!("{}", distribution.display());
        return Ok(());
    }
    test(&target, &distribution, libclang.as_deref(), &compiler)
}

/// True when pip's record of the right version is there; the folder is moved into place only when whole.
fn is_fetched(distribution: &Path, variant: Variant) -> bool {
    let record = format!("{}-{MLX_VERSION}.dist-info", variant.package().replace('-', "_"));
    distribution.join(record).is_dir()
}

fn fetch_mlx(pip: &Pip, distribution: &Path, variant: Variant) -> Result<()> {
    let package = variant.package();
    eprintln!("fetching {package} {MLX_VERSION}");
    pip.install(distribution, &requirement(&package, MLX_VERSION, variant.hashes()), |staging| {
        if !matches!(variant, Variant::Cuda12 | Variant::Cuda13) {
            return Ok(());
        }
        // The CUDA libraries are NVIDIA's packages, several gigabytes, and carry no hash here: the range of versions
        // that MLX asks for moves with the drivers. What is there already stays as it was verified.
        eprintln!("fetching the CUDA libraries that {package} names");
        let wanted = format!("{package}=={MLX_VERSION}");
        pip.call(&[OsString::from("--target"), staging.into(), wanted.into()])
    })
}

/// Returns the folder of `libclang.so`.
fn fetch_libclang(pip: &Pip, folder: &Path) -> Result<PathBuf> {
    let native = folder.join("clang/native");
    if !native.is_dir() {
        eprintln!("fetching libclang {LIBCLANG_VERSION}");
        pip.install(folder, &requirement("libclang", LIBCLANG_VERSION, LIBCLANG_HASHES), |_| Ok(()))?;
    }
    Ok(native)
}

/// A line of a requirements file that pins one package to these files.
fn requirement(package: &str, version: &str, hashes: &[&str]) -> String {
    let mut line = format!("{package}=={version}");
    for hash in hashes {
        line.push_str(" --hash=sha256:");
        line.push_str(hash);
    }
    line
}

/// A Python that has pip.
struct Pip {
    python: PathBuf,
}

impl Pip {
    /// The machine's Python with its pip, else a virtual environment in `target`.
    fn find(target: &Path) -> Result<Self> {
        let python = ["python3", "python"].into_iter().find(|name| {
            let version = "import sys; sys.exit(sys.version_info < (3, 8))";
            succeeds(Command::new(name).args(["-c", version]))
        });
        let Some(python) = python else {
            return Err("Python 3.8 or later, whose pip fetches MLX: install python3 with pip".to_owned());
        };
        if succeeds(Command::new(python).args(["-m", "pip", "--version"])) {
            return Ok(Self { python: python.into() });
        }
        let environment = target.join("venv");
        let inside = environment.join("bin/python");
        if succeeds(Command::new(&inside).args(["-m", "pip", "--version"]))
            || succeeds(Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment))
        {
            return Ok(Self { python: inside });
        }
        Err(format!("pip, which fetches MLX: {python} has neither pip nor venv (Debian: python3-pip or python3-venv)"))
    }

    /// Unpacks one pinned package into `folder`; what is there stays until the new one is whole, `then` included.
    fn install(&self, folder: &Path, requirement: &str, then: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let staging = folder.with_extension("partial");
        let io = |error: std::io::Error| format!("cannot prepare {}: {error}", staging.display());
        remove(&staging).map_err(io)?;
        fs::create_dir_all(&staging).map_err(io)?;
        let pinned = staging.join("requirements.txt");
        fs::write(&pinned, requirement).map_err(io)?;
        // Nothing here is run by Python, so it does not matter which versions of it the package supports.
        let mut arguments: Vec<OsString> = ["--no-deps", "--ignore-requires-python", "--require-hashes", "-r"]
            .into_iter()
            .map(OsString::from)
            .collect();
        arguments.extend([pinned.into(), "--target".into(), staging.clone().into()]);
        self.call(&arguments)?;
        then(&staging)?;
        remove(folder).and_then(|()| fs::rename(&staging, folder)).map_err(io)
    }

    fn call(&self, arguments: &[OsString]) -> Result<()> {
        let mut command = Command::new(&self.python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]);
        command.arg("--only-binary=:all:").args(arguments);
        // The advice to root is about its own site-packages, which stay as they are.
        command.env("PIP_ROOT_USER_ACTION", "ignore");
        // pip says on stderr why it could not.
        steps::run(&mut command).map_err(|error| {
            format!(
                "{error}; MLX's packages for Linux want glibc 2.35 or later, those for macOS want version 14 or later, \
                 and both want a way to PyPI"
            )
        })
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
}

/// The C++ compiler that the build will use.
fn compiler() -> Result<PathBuf> {
    let named = env::var_os("CXX").map(PathBuf::from);
    let candidates = named.into_iter().chain(["c++", "g++", "clang++"].map(PathBuf::from));
    candidates.into_iter().find(|compiler| succeeds(Command::new(compiler).arg("--version"))).ok_or_else(|| {
        "a C++20 compiler: install g++ 12 or later, or on macOS the command line tools of Xcode".to_owned()
    })
}

/// The folder of the libclang that bindgen would find or be told of, if the machine has one.
fn libclang() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("LIBCLANG_PATH").map(PathBuf::from).into_iter().collect();
    let llvm = Command::new("llvm-config").arg("--libdir").output().ok().filter(|output| output.status.success());
    let xcode = Command::new("xcode-select").arg("--print-path").output().ok().filter(|output| output.status.success());
    let printed = |output: std::process::Output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    folders.extend(llvm.map(printed));
    if let Some(developer) = xcode.map(printed) {
        folders.extend([developer.join("usr/lib"), developer.join("Toolchains/XcodeDefault.xctoolchain/usr/lib")]);
    }
    let entries = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    for folder in entries {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("llvm-") {
            folders.push(folder.join("lib"));
        } else if name.ends_with("-linux-gnu") {
            folders.push(folder);
        }
    }
    folders.extend(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
    folders.into_iter().find(|folder| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).any(|name| is_libclang(&name))
    })
}

/// The names under which bindgen looks for libclang, `libclang-cpp` being another library.
fn is_libclang(name: &str) -> bool {
    let rest = name.strip_prefix("libclang").unwrap_or_default();
    let version = rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    rest.starts_with(".so") || rest.starts_with(".dylib") || (version && rest.contains(".so"))
}

/// Builds `backend-mlx` with its tests and runs them, the parity test among them.
fn test(target: &Path, distribution: &Path, libclang: Option<&Path>, compiler: &Path) -> Result<()> {
    let mut command = steps::cargo();
    command.args(["test", "--package", "mlxctl-backend-mlx", "--target-dir"]).arg(target);
    // The differences found are the point of the run, so they are shown.
    command.args(["--", "--show-output"]);
    command.env("MLX_DIST", distribution);
    if let Some(folder) = libclang {
        command.env("LIBCLANG_PATH", folder);
    }
    // A libclang without a clang around it lacks stddef.h and its like; the compiler's own serve, after any of its own.
    if let Some(folder) = headers_of(compiler) {
        let mut arguments = env::var_os("BINDGEN_EXTRA_CLANG_ARGS").unwrap_or_default();
        arguments.push(" -idirafter ");
        arguments.push(folder);
        command.env("BINDGEN_EXTRA_CLANG_ARGS", arguments);
    }
    steps::run(&mut command)
}

/// The folder in which the compiler keeps stddef.h.
fn headers_of(compiler: &Path) -> Option<PathBuf> {
    let output = Command::new(compiler).arg("-print-file-name=include").output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    folder.join("stddef.h").is_file().then_some(folder)
}

/// True when the command starts and exits with 0; what it says is not shown.
fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], os: &str, arch: &str) -> Result<Options> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        Options::parse(&arguments, os, arch)
    }

    #[test]
    fn each_platform_gets_its_own_variant() {
        let chosen = |os, arch| parse(&[], os, arch).map(|options| options.variant);
        assert_eq!(chosen("linux", "x86_64"), Ok(Variant::Cpu));
        assert_eq!(chosen("linux", "aarch64"), Ok(Variant::Cpu));
        assert_eq!(chosen("macos", "aarch64"), Ok(Variant::Metal));
        assert!(chosen("macos", "x86_64").is_err_and(|said| said.contains("macos on x86_64")));
    }

    #[test]
    fn a_variant_of_another_platform_is_refused_by_name() {
        assert_eq!(parse(&["--variant", "cuda-12"], "linux", "x86_64").map(|asked| asked.variant), Ok(Variant::Cuda12));
        let refused = parse(&["--variant", "metal"], "linux", "x86_64").unwrap_err();
        assert!(refused.contains("mlx-metal") && refused.contains("cpu, cuda-13, cuda-12"), "{refused}");
        assert!(parse(&["--variant", "rocm"], "linux", "x86_64").unwrap_err().contains("rocm"));
        assert!(parse(&["--variant"], "linux", "x86_64").is_err());
        assert!(parse(&["--fast"], "linux", "x86_64").unwrap_err().contains("--fast"));
    }

    #[test]
    fn every_package_is_pinned_by_whole_hashes() {
        let all = Variant::ALL.into_iter().flat_map(Variant::hashes).chain(LIBCLANG_HASHES);
        for hash in all {
            assert_eq!(hash.len(), 64, "{hash}");
            assert!(hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{hash}");
        }
    }

    #[test]
    fn libclang_is_told_from_its_neighbours() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so", "libclang-14.so.1", "libclang.dylib"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclangAST.a", "libclang.a", "libclangd.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }
}
