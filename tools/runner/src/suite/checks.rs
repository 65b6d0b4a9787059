//! What cargo and scripts do, and what they count.

use super::{failed, file_name, lane_directory, passed, tail};
use crate::firmware::cargo;
use crate::host;
use crate::ktap::Counts;
use crate::lanes::{CHECK_LIMIT, Check, MiriTests};
use crate::paths;
use crate::process::Group;
use anyhow::{Result, bail};
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that has ended.
struct Ended {
    success: bool,
    output: String,
}

/// Runs `command` for at most [`CHECK_LIMIT`] and says how it went in a line.
fn run_command(lane: &str, name: &str, mut command: Command) -> Result<Ended> {
    let path = lane_directory(lane)?.join(file_name(name) + ".log");
    let log = File::create(&path)?;
    let start = Instant::now();
    let mut group = Group::spawn(
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log),
    )?;
    let status = group.wait_until(start + CHECK_LIMIT)?;
    group.end()?;
    let success = status.is_some_and(|status| status.success());
    let output = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
    let verdict = if success { "ok" } else { "not ok" };
    println!(
        "  {verdict} {name} ({:.0} s)",
        start.elapsed().as_secs_f64()
    );
    if !success {
        let why = match status {
            Some(status) => status.to_string(),
            None => format!("cut after {} s", start.elapsed().as_secs()),
        };
        print!("{}", tail(&output));
        println!("    {why}, all of it in {}", path.display());
    }
    Ok(Ended { success, output })
}

fn cargo_command(check: &Check) -> Command {
    let mut command = cargo();
    command.args(check.args).envs(check.env.iter().copied());
    command
}

pub(super) fn run_checks(lane: &str, checks: &[Check]) -> Result<Counts> {
    let mut counts = Counts::default();
    for check in checks {
        let ended = run_command(lane, check.name, cargo_command(check))?;
        counts.add(if ended.success { passed(1) } else { failed(1) });
    }
    Ok(counts)
}

/// What fixes the cases property tests draw; `.cargo/config.toml` sets it.
const SEED: &str = "PROPTEST_RNG_SEED";

pub(super) fn run_tests(lane: &str, checks: &[Check]) -> Result<Counts> {
    if let Ok(seed) = std::env::var(SEED) {
        println!("  # {SEED}={seed}: set it for other property cases, PROPTEST_CASES for more");
    }
    let mut counts = Counts::default();
    for check in checks {
        let ended = run_command(lane, check.name, cargo_command(check))?;
        counts.add(test_counts(&ended));
    }
    Ok(counts)
}

/// Runs tests that may run for `limit`. Those that take longer are a failure, and say so.
pub(super) fn run_timed(lane: &str, check: &Check, limit: Duration) -> Result<Counts> {
    let ended = run_command(lane, check.name, cargo_command(check))?;
    show_notes(&ended);
    let mut counts = test_counts(&ended);
    let took = run_time(&ended);
    if took > limit {
        println!(
            "  not ok {} ran {took:.1?}, more than {limit:?}",
            check.name
        );
        counts.add(failed(1));
    }
    Ok(counts)
}

/// Prints what tests note of their results.
fn show_notes(ended: &Ended) {
    let notes = ended.output.lines().filter(|line| line.starts_with("# "));
    notes.for_each(|note| println!("  {note}"));
}

/// How long the tests ran, as their `test result:` lines say, without the time to compile them.
fn run_time(ended: &Ended) -> Duration {
    let seconds = |line: &str| {
        let (_, seconds) = line.split_once("; finished in ")?;
        Duration::try_from_secs_f64(seconds.strip_suffix('s')?.parse().ok()?).ok()
    };
    ended.output.lines().filter_map(seconds).sum()
}

/// Runs a script of the repository and reads what it counts.
pub(super) fn run_script(lane: &str, path: &str) -> Result<Counts> {
    let mut command = Command::new(paths::root().join(path));
    command.current_dir(paths::root());
    Ok(script_counts(&run_command(lane, path, command)?))
}

/// What the last line of a script says, `N passed, N failed`. A run that fails has a failure.
fn script_counts(ended: &Ended) -> Counts {
    let last = ended.output.lines().last().unwrap_or_default();
    let number = |word: &str| {
        let mut parts = last.split(',').map(str::trim);
        let number = parts.find_map(|part| part.strip_suffix(word))?;
        number.trim().parse().ok()
    };
    let mut counts = match (number("passed"), number("failed")) {
        (Some(passed), Some(failed)) => Counts {
            passed,
            failed,
            skipped: 0,
        },
        _ => Counts::default(),
    };
    if !ended.success && counts.failed == 0 {
        counts.failed = 1;
    }
    counts
}

/// What the `test result:` lines of a test run count. A run that fails has a failure.
fn test_counts(ended: &Ended) -> Counts {
    let mut counts = Counts::default();
    for line in ended.output.lines() {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else {
            continue;
        };
        let number = |word: &str| {
            let part = result.split(['.', ';']).map(str::trim);
            let mut numbers = part.filter_map(|part| part.strip_suffix(word));
            numbers
                .next()
                .and_then(|n| n.trim().parse().ok())
                .unwrap_or(0)
        };
        counts.add(Counts {
            passed: number("passed"),
            failed: number("failed"),
            skipped: number("ignored"),
        });
    }
    if !ended.success && counts.failed == 0 {
        counts.failed = 1;
    }
    counts
}

pub(super) fn run_miri(lane: &str, tests: &MiriTests) -> Result<Counts> {
    let miri = || {
        let mut command = Command::new("rustup");
        command
            .args(["run", "nightly", "cargo", "miri"])
            .current_dir(paths::root())
            .stdin(Stdio::null());
        command
    };
    let probe = miri().arg("--version").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("  SKIP no nightly with Miri (rustup toolchain install nightly -c miri,rust-src)");
        return Ok(Counts {
            skipped: 1,
            ..Counts::default()
        });
    }
    let listed = run_command(lane, tests.list.name, cargo_command(&tests.list))?;
    let names = miri_names(&listed.output, tests)?;
    let check = &tests.run;
    let mut command = miri();
    command
        .args(check.args)
        .args(names)
        .envs(check.env.iter().copied())
        .env("CARGO_BUILD_TARGET", host::triple()?);
    Ok(test_counts(&run_command(lane, check.name, command)?))
}

/// The tests in `list` that Miri is to run. Each start of a name must be one of some test's.
fn miri_names<'a>(list: &'a str, tests: &MiriTests) -> Result<Vec<&'a str>> {
    let all: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    for start in tests.of.iter().chain(tests.without) {
        if !all.iter().any(|name| name.starts_with(start)) {
            bail!("no test's name starts with {start}");
        }
    }
    let starts = |name: &str, with: &[&str]| with.iter().any(|start| name.starts_with(start));
    let wanted = |name: &&str| starts(name, tests.of) && !starts(name, tests.without);
    Ok(all.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(success: bool, output: &str) -> Ended {
        Ended {
            success,
            output: output.into(),
        }
    }

    const OUTPUT: &str = "\
running 3 tests
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s
";

    #[test]
    fn test_results_add_up() {
        let counts = test_counts(&ended(false, OUTPUT));
        assert_eq!(counts.to_string(), "7 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn run_times_add_up() {
        assert_eq!(run_time(&ended(false, OUTPUT)), Duration::from_secs(1));
        let slow = "; finished in 35.25s\n";
        let slow = OUTPUT.replace("; finished in 1.00s\n", slow);
        assert_eq!(run_time(&ended(true, &slow)), Duration::from_millis(35_250));
        assert_eq!(run_time(&ended(true, "")), Duration::ZERO);
    }

    #[test]
    fn a_script_counts_for_itself() {
        let counts = |success, output| script_counts(&ended(success, output)).to_string();
        assert_eq!(
            counts(true, "ok - a\n3 passed, 0 failed\n"),
            passed(3).to_string()
        );
        assert_eq!(
            counts(false, "3 passed, 2 failed"),
            "3 passed, 2 failed, 0 skipped"
        );
        assert_eq!(
            counts(false, "3 passed, 0 failed\nkilled"),
            failed(1).to_string()
        );
        assert_eq!(
            counts(true, "nothing of this kind"),
            Counts::default().to_string()
        );
    }

    #[test]
    fn a_run_that_does_not_build_is_a_failure() {
        let counts = test_counts(&ended(false, "error: could not compile"));
        assert_eq!(counts, failed(1));
        assert_eq!(test_counts(&ended(true, "")), Counts::default());
    }

    #[test]
    fn commands_are_judged_by_their_status() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo text; exit 3"]);
        let ended = run_command("selftest", "fails on purpose", command).unwrap();
        assert!(!ended.success);
        assert_eq!(ended.output, "text\n");
    }

    #[test]
    fn miri_is_given_whole_names() {
        let check = || Check {
            name: "none",
            args: &[],
            env: &[],
        };
        let tests = |of, without| MiriTests {
            list: check(),
            run: check(),
            of,
            without,
        };
        let list = "     Running unittests\na::b: test\na::c: test\nb::a: test\na::d: bench\n";
        let names = miri_names(list, &tests(&["a::"], &["a::c"]));
        assert_eq!(names.unwrap(), ["a::b"]);
        for (of, without) in [(&["a::", "c::"][..], &[][..]), (&["a::"], &["a::e"])] {
            assert!(miri_names(list, &tests(of, without)).is_err());
        }
    }
}
