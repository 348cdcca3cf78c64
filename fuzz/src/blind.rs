//! Runs targets over their seeds, over what was found before, and over what becomes of both when they are broken at
//! random. The same inputs in the same order in each run with the same `--random`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_fuzz::mutation::{Random, mutate};
use portcullis_fuzz::{TARGETS, Target, find};

/// One input that takes as long is a finding, too.
const TOO_LONG: Duration = Duration::from_secs(10);

/// What is being tried, and since when.
type Current = Arc<Mutex<Option<(Instant, &'static str, Vec<u8>)>>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}\n  hint: `fuzz/run --help`");
            ExitCode::from(2)
        }
    }
}

/// How far to go.
struct Bounds {
    /// For all targets together.
    seconds: f64,
    /// For each of them. On every machine that is fast enough the same ones are tried.
    inputs: u64,
    random: u64,
}

/// How many findings there were.
fn run(arguments: &[String]) -> Result<usize, String> {
    let (mut targets, mut inputs): (Vec<&Target>, Vec<PathBuf>) = Default::default();
    let (mut bounds, mut seeds_to) = (Bounds { seconds: 10.0, inputs: u64::MAX, random: 1 }, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--list" => {
                TARGETS.iter().for_each(|target| println!("{:16} {}", target.name, target.about));
                return Ok(0);
            }
            "--seconds" => bounds.seconds = number(value()?)?,
            "--inputs" => bounds.inputs = number(value()?)?,
            "--random" => bounds.random = number(value()?)?,
            "--seeds-to" => seeds_to = Some(PathBuf::from(value()?)),
            "--input" => inputs.push(value()?.into()),
            name => targets.push(find(name).ok_or(format!("no target is called `{name}`"))?),
        }
    }
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    if let Some(directory) = seeds_to {
        return write_seeds(&targets, &directory).map(|()| 0).map_err(|error| error.to_string());
    }
    let current = watch();
    if !inputs.is_empty() {
        bounds.inputs = 0;
    }
    bounds.seconds /= targets.len() as f64;
    let mut findings = 0;
    for target in &targets {
        let known = if inputs.is_empty() { known(target) } else { read(&inputs)? };
        findings += try_target(target, &known, &bounds, &current);
    }
    Ok(findings)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn read(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    files.iter().map(|file| fs::read(file).map_err(|error| format!("{}: {error}", file.display()))).collect()
}

fn findings_of(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("findings").join(target.name)
}

/// Seeds, and what was found before and is kept.
fn known(target: &Target) -> Vec<Vec<u8>> {
    let mut known = (target.seeds)();
    let mut files: Vec<_> = fs::read_dir(findings_of(target))
        .map(|it| it.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    known.extend(files.iter().filter_map(|file| fs::read(file).ok()));
    known
}

fn write_seeds(targets: &[&Target], directory: &Path) -> std::io::Result<()> {
    for target in targets {
        let directory = directory.join(target.name);
        fs::create_dir_all(&directory)?;
        for (number, seed) in known(target).iter().enumerate() {
            fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

/// Known inputs must all pass; of random ones the first that does not ends the target. `seconds` are its own here.
fn try_target(target: &'static Target, known: &[Vec<u8>], bounds: &Bounds, current: &Current) -> usize {
    let (started, mut random) = (Instant::now(), Random::new(bounds.random));
    let (mut tried, mut findings) = (0_u64, 0);
    for input in known {
        findings += usize::from(!passes(target, input, current));
        tried += 1;
    }
    while findings == 0 && tried < bounds.inputs && started.elapsed().as_secs_f64() < bounds.seconds {
        let input = mutate(known, &mut random);
        findings += usize::from(!passes(target, &input, current));
        tried += 1;
    }
    let each = started.elapsed().as_secs_f64();
    println!("{:16} {tried:>9} inputs in {each:>5.1} s, {findings} findings", target.name);
    findings
}

fn passes(target: &'static Target, input: &[u8], current: &Current) -> bool {
    set(current, Some((Instant::now(), target.name, input.to_vec())));
    let passed = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok();
    set(current, None);
    if !passed {
        keep(target.name, input);
    }
    passed
}

fn set(current: &Current, tried: Option<(Instant, &'static str, Vec<u8>)>) {
    *current.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = tried;
}

/// Writes down what was found, so that it can be tried again.
fn keep(target: &str, input: &[u8]) {
    let file = std::env::temp_dir().join(format!("{target}-{:016x}", fingerprint(input)));
    match fs::write(&file, input) {
        Ok(()) => {
            eprintln!("finding: {target}: {0} (again: `fuzz/run {target} --input {0}`)", file.display())
        }
        Err(error) => eprintln!("finding: {target}: {input:?} ({error})"),
    }
}

/// FNV-1a.
fn fingerprint(input: &[u8]) -> u64 {
    input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A parser that does not come back is found by the clock.
fn watch() -> Current {
    let current = Current::default();
    let watched = current.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let tried = watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some((since, target, input)) = &*tried
                && since.elapsed() > TOO_LONG
            {
                eprintln!("{target}: one input takes longer than {TOO_LONG:?}");
                keep(target, input);
                std::process::exit(1);
            }
        }
    });
    current
}
