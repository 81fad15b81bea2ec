//! `sigmagate completions`: what a shell needs to complete the verbs.

use std::io::Write;

use clap::CommandFactory;

/// Which shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Prints the script that the shell sources.
pub fn run<C: CommandFactory>(args: &Args, out: &mut dyn Write) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "sigmagate", &mut script);
    out.write_all(&script)?;
    Ok(0)
}
