//! The `sigmagate` program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: whoever needs TLS later finds this provider, and no other is ever chosen.
    sigmagate::tls::install_provider();
    ExitCode::from(sigmagate::cli::run(std::env::args_os()))
}
