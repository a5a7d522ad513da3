//! Project chores, such as `cargo xtask plugins`, `test`, `lint` and `bench`. CI runs the same commands.
//!
//! Not here: anything a user of trimtab needs. The built policies are committed (`plugins/dist/`), so nobody else needs
//! a wasm toolchain.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command for a terminal")]

mod again;
mod bindings;
mod budget;
mod build;
mod cases;
mod chores;
mod contract;
mod dist;
mod effects;
mod examples;
mod languages;
mod mutants;
mod reference;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Project chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build every policy of `plugins/` into `plugins/dist/`
    Plugins {
        /// Change nothing: build anew and compare with `plugins/dist/`
        #[arg(long)]
        check: bool,
    },
    /// Generate the C bindings of `sdk/c` from `wit/`
    Bindings {
        /// Change nothing: compare with what is there
        #[arg(long)]
        check: bool,
    },
    /// Build the example policies as a user would get them, and a new one, and have the host check, test and simulate them
    Examples {
        /// A trimtab that is built already; by default it is built here, for release
        #[arg(long, value_name = "FILE")]
        trimtab: Option<PathBuf>,
    },
    /// Build one policy in every language, and print what each costs and whether all decide alike
    Languages {
        /// Measure in a release build of the host, which takes minutes to make
        #[arg(long)]
        release: bool,
        /// Only this language: a folder of `examples/languages/`
        #[arg(long, value_name = "LANGUAGE")]
        only: Option<String>,
    },
    /// Put bugs into the built-in policies, and have `trimtab policy test` find them
    Mutants {
        /// A trimtab that is built already; by default it is built here, for release
        #[arg(long, value_name = "FILE")]
        trimtab: Option<PathBuf>,
    },
    /// Write `host/docs/policy-reference.md` from the comments of `wit/`
    Reference,
    /// Keep the contract of this version, and components that use it, for ever: `tests/contract/VERSION/`
    Freeze,
    /// Run all tests: by cargo-nextest if it is installed, else by cargo
    Test,
    /// Run the tests of the case list of bad input, and count the cases: `tests/cases/cases.toml`
    Cases,
    /// Install the programs of others (`tests/outside/install.sh`) and run the tests that drive them
    Outside {
        /// Install only
        #[arg(long)]
        install: bool,
    },
    /// Everything at once for a while, in a release build: fails on errors, open files and memory that grow
    Soak {
        /// How long; CI takes 2
        #[arg(long, default_value_t = 30.0)]
        minutes: f64,
    },
    /// What clients see of one bad backend of three, killed, frozen and so on, as a table; in a release build
    Faults,
    /// Check formatting and lints
    Lint,
    /// Print what a pick of each built-in policy costs, beside what it may cost
    Budget {
        /// A trimtab that is built already; by default it is built here, for release
        #[arg(long, value_name = "FILE")]
        trimtab: Option<PathBuf>,
    },
    /// Measure trimtab and its peers side by side; without arguments, tell how
    Bench {
        /// As `run --scenarios s1,s2 --rounds 5`; `run --help` has all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match work(&Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // By hand: a back trace of this program helps nobody who reads CI's output.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(chore: &Chore) -> Result<()> {
    let root = root()?;
    match chore {
        Chore::Plugins { check: false } => dist::write(&root),
        Chore::Plugins { check: true } => dist::check(&root),
        Chore::Bindings { check: false } => bindings::write(&root),
        Chore::Bindings { check: true } => bindings::check(&root),
        Chore::Languages { release, only } => {
            let order = languages::Order {
                is_release: *release,
                only: only.as_deref(),
            };
            languages::compare(&root, &order)
        }
        Chore::Examples { trimtab } => examples::check(&root, trimtab.clone()),
        Chore::Mutants { trimtab } => mutants::check(&root, trimtab.clone()),
        Chore::Reference => contract::write_reference(&root),
        Chore::Freeze => contract::freeze(&root),
        Chore::Test => chores::test(&root),
        Chore::Cases => cases::run(&root),
        Chore::Outside { install } => chores::outside(&root, *install),
        Chore::Soak { minutes } => chores::soak(&root, &["run"], &[&minutes.to_string()]),
        Chore::Faults => chores::soak(&root, &["faults"], &[]),
        Chore::Lint => chores::lint(&root),
        Chore::Budget { trimtab } => budget::print(&root, trimtab.clone()),
        Chore::Bench { arguments } => chores::bench(&root, arguments),
    }
}

/// The workspace, found at run time: a path compiled in would be wrong in a moved checkout.
fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = PathBuf::from(manifest).join("../..");
    root.canonicalize()
        .with_context(|| format!("no workspace at {}", root.display()))
}
