//! The project's own tasks: `cargo xtask demo | test | conformance | faults | bench | fuzz | mlx | schemas`.
//!
//! It uses the standard library alone, so that it is built in a second on a machine that has nothing yet.

mod bench;
mod conformance;
mod demo;
mod faults;
mod fuzz;
mod mlx;
mod schemas;
mod steps;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK

  demo         build the programs and walk once from a recipe to an answer pinned by digest
  test         run every check and test, installing what they need
  conformance  run the distribution specification's own suite against the embedded registry
  faults       push and pull through a registry that misbehaves, a thousand times
  bench        measure speed and memory beside a peer on the same work, and print the ratios
  fuzz         feed everything that parses foreign bytes, for MINUTES a target (nightly compiler)
  mlx          fetch a prebuilt MLX, build the MLX backend and run its parity test
  schemas      write the generated schemas and references anew";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match task.as_str() {
        "demo" => demo::run(),
        "test" => test::run(&rest),
        "bench" => bench::run(&rest),
        "conformance" => conformance::run_task(),
        "fuzz" => fuzz::run(&rest),
        "faults" => faults::run(&rest),
        "mlx" => mlx::run(&rest),
        "schemas" => schemas::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
