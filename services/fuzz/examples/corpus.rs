//! Writes each target's good input where the fuzzer looks for it: `cargo run -p fuzz --example corpus -- DIRECTORY`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("a directory"));
    for target in fuzz::TARGETS {
        let corpus = directory.join(target.name);
        std::fs::create_dir_all(&corpus)?;
        for (n, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{n}")), seed)?;
        }
    }
    Ok(())
}
