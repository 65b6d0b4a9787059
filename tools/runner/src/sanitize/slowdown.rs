//! What the plugin costs: the same run with it and without, back to back.

use super::options::Options;
use super::watched::watch;
use crate::console::Show;
use crate::firmware::{Build, Firmware};
use crate::machine::Watch;
use crate::paths;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// How much longer a run may take without shadow mode.
const LIMIT: f64 = 5.0;

/// Seconds of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    wall: f64,
    /// Of all of QEMU's threads.
    cpu: f64,
}

/// Runs the firmware `pairs` times with the plugin and without. `false` means that it is too slow.
pub(super) fn compare(
    settings: &Settings,
    pairs: usize,
    options: &Options,
    plugin: &Path,
) -> Result<bool> {
    let board = settings.board;
    let with = options.watch(plugin, false);
    let without = Watch {
        plugin: None,
        ..with.clone()
    };
    let firmware = Firmware::from_elf(Firmware::path_of(board, Build::Plain))?;
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for number in 1..=pairs {
        // Each is the first of every other pair, so that what changes meanwhile hits both.
        let is_first = number % 2 == 0;
        let mut costs = [None; 2];
        for is_watched in [is_first, !is_first] {
            let watch = if is_watched { &with } else { &without };
            let settings = Settings {
                watch: Some(watch.clone()),
                ..settings.clone()
            };
            let cost = measure(&settings, &firmware).with_context(|| format!("pair {number}"))?;
            costs[usize::from(is_watched)] = Some(cost);
        }
        let [Some(without), Some(with)] = costs else {
            bail!("pair {number} is none");
        };
        println!(
            "# pair board={board} number={number} without: wall={:.2} cpu={:.2} with: wall={:.2} \
             cpu={:.2}",
            without.wall, without.cpu, with.wall, with.cpu
        );
        walls.push(with.wall / without.wall);
        cpus.push(with.cpu / without.cpu);
    }
    let (wall, cpu) = (median(&mut walls), median(&mut cpus));
    let shadow = if with.shadow { "on" } else { "off" };
    println!("# slow-down board={board} shadow={shadow} pairs={pairs} wall={wall:.2} cpu={cpu:.2}");
    Ok(with.shadow || wall <= LIMIT)
}

/// One run, which must be right.
fn measure(settings: &Settings, firmware: &Firmware) -> Result<Cost> {
    let directory = paths::report()
        .join("sanitize")
        .join(settings.board.name())
        .join("pairs");
    let before = children()?;
    let watched = watch(settings, firmware, &directory, Show::Nothing)?;
    let cpu = children()? - before;
    let is_watched = settings
        .watch
        .as_ref()
        .is_some_and(|watch| watch.plugin.is_some());
    let objection = match is_watched {
        true => watched.objection(),
        false => watched.outcome.objection,
    };
    if let Some(why) = objection {
        bail!(why);
    }
    Ok(Cost {
        wall: watched.outcome.took.as_secs_f64(),
        cpu,
    })
}

/// Seconds of CPU that the processes took which this one has started and seen end.
fn children() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    let ticks =
        ticks_of_children(&text).context("/proc/self/stat is not as proc_pid_stat(5) says")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `cutime` and `cstime` (proc_pid_stat(5), fields 16 and 17).
fn ticks_of_children(stat: &str) -> Option<u64> {
    // The name, which may hold anything, is in parentheses; the state, field 3, comes after it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(16 - 3);
    let mut number = || fields.next()?.parse::<u64>().ok();
    Some(number()? + number()?)
}

/// The one in the middle, or what is between the two there.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        0 => (values[half - 1] + values[half]) / 2.0,
        _ => values[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [9.0, 1.0, 2.0, 4.0]), 3.0);
        assert_eq!(median(&mut [1.5]), 1.5);
    }

    #[test]
    fn the_children_are_counted_and_nobody_else() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 200 0 0 11 12 130 14 20 0 1 0 99";
        assert_eq!(ticks_of_children(stat), Some(144));
        assert_eq!(ticks_of_children("7 (a) S 1"), None);
        let before = children().unwrap();
        let mut busy = std::process::Command::new("sh");
        let busy = busy.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]);
        assert!(busy.status().unwrap().success());
        assert!(children().unwrap() > before);
    }
}
