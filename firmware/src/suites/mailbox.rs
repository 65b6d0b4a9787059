//! The property mailbox: the firmware's answers, and the maintenance of every request.

use crate::handed::Taken;
use crate::machine::machine;
use crate::provocation::{Kind, Provoked, Wrong};
use crate::report::{self, Outcome, Stop, Suite, diagnostic};
use crate::{check, check_ok};
use core::sync::atomic::{AtomicU32, Ordering};
use hal::addr::PhysAddr;
use hal::arch::cpu;
use hal::dma::ALIGNMENT;
use hal::dma::maintenance::{Counters, counters, line_size};
use hal::drivers::mailbox::property::{
    ArmMemory, BoardRevision, ClockRate, CommandLine, DmaChannels, FirmwareRevision, MacAddress,
    MaxClockRate, MaxTemperature, MeasuredClockRate, MinClockRate, NoSuchTag, Serial, SetClockRate,
    Temperature, VideoCoreMemory,
};
use hal::drivers::mailbox::revision::Soc;
use hal::drivers::mailbox::{ClockId, Mailbox, MailboxError, Property, Via};
use hal::drivers::mmio::Mmio;
use hal::smp;

/// The suite.
pub(super) const SUITE: Suite = Suite {
    name: "mailbox",
    tests: tests! {
        the_board_is_known: board,
        arm_and_videocore_share_the_first_gib: memory,
        clocks_run_between_their_limits: clocks,
        the_temperature_is_bearable: temperature,
        the_command_line_is_whole_or_said_to_be_cut: command_line,
        both_memories_carry_the_same_answers: both_memories,
        requests_are_maintained_on_both_sides: maintenance,
        requests_are_maintained_on_both_sides_planted: maintenance_planted,
        a_tag_nobody_knows_is_named: unknown,
        requests_need_no_interrupts: masked,
        every_core_asks: every_core,
    },
};

/// Both ways a request can be carried.
const WAYS: [Via; 2] = [Via::Coherent, Via::Streaming];

/// QEMU's board.
const QEMU_REVISION: u32 = 0xB0_3115;

/// What the firmware and the legacy masters see of RAM.
const FIRST_GIB: PhysAddr = PhysAddr::new(1 << 30);

/// The mailbox. One that did not come up is a failure where there must be one.
fn mailbox() -> Result<&'static Mailbox<Mmio>, Stop> {
    match machine().mailbox {
        Some(mailbox) => Ok(mailbox),
        None if machine().board.has_mailbox() => report::failed(format_args!(
            "the mailbox did not come up; the notes at the start of the report say why"
        )),
        None => Err(Stop::Skipped("the board has no mailbox")),
    }
}

/// The answer to `property`, or the end of the test.
fn ask<P: Property>(property: &P) -> Result<P::Answer, Stop> {
    let answer = mailbox()?.request(Via::Streaming, property);
    Ok(check_ok!(answer))
}

fn board() -> Outcome {
    let revision = ask(&BoardRevision)?;
    let build = ask(&FirmwareRevision)?;
    let mac = ask(&MacAddress)?;
    let serial = ask(&Serial)?;
    let channels = ask(&DmaChannels)?;
    diagnostic(format_args!(
        "board={revision} firmware={build} serial={serial:#x} mac={mac:02x?} dma={:#x}",
        channels.bits()
    ));
    check!(
        revision.soc() == Some(Soc::Bcm2711),
        "{revision} is no BCM2711"
    );
    if machine().unmodelled_engines.is_some() {
        check!(
            revision.get() == QEMU_REVISION,
            "QEMU's board is {revision}"
        );
    }
    let ram: u64 = machine().map.ram().iter().map(|range| range.size()).sum();
    let memory = revision.memory().unwrap_or_default();
    check!(
        ram <= memory,
        "{ram:#x} bytes of RAM on a board of {memory:#x}"
    );
    check!(
        mac != [0; 6] && mac[0] & 1 == 0,
        "{mac:02x?} is no station's address"
    );
    check!(channels.bits() != 0, "no DMA channel is left to the Arm");
    Ok(())
}

fn memory() -> Outcome {
    let arm = ask(&ArmMemory)?;
    let videocore = ask(&VideoCoreMemory)?;
    diagnostic(format_args!("arm={arm} videocore={videocore}"));
    check!(!arm.is_empty(), "the Arm has no memory");
    check!(
        arm.end <= videocore.start && videocore.end <= FIRST_GIB,
        "arm={arm} videocore={videocore}"
    );
    let taken = machine()
        .map
        .ram()
        .iter()
        .find(|ram| ram.overlaps(&videocore));
    check!(taken.is_none(), "{taken:?} is the VideoCore's");
    Ok(())
}

fn clocks() -> Outcome {
    use ClockId::{Arm, Core, Emmc, Emmc2, Uart};
    for clock in [Emmc, Uart, Arm, Core, Emmc2] {
        let (low, high) = (ask(&MinClockRate(clock))?, ask(&MaxClockRate(clock))?);
        let rate = ask(&ClockRate(clock))?;
        let measured = mailbox()?.request(Via::Streaming, &MeasuredClockRate(clock));
        diagnostic(format_args!(
            "clock={clock:?} min={low} rate={rate} max={high} measured={measured:?}"
        ));
        // A clock that is off, or not there, runs at 0 Hz.
        check!(
            rate == 0 || (low..=high).contains(&rate),
            "{clock:?} runs at {rate} Hz, outside {low}..={high}"
        );
        let known = matches!(measured, Ok(_) | Err(MailboxError::Unknown { .. }));
        check!(known, "{clock:?} measured: {measured:?}");
    }
    let hz = ask(&ClockRate(Arm))?;
    check!(hz != 0, "the Arm's clock is off");
    // To what it is: the answer must not be something else's.
    let set = ask(&SetClockRate { clock: Arm, hz })?;
    check!(
        set == hz,
        "the Arm's clock was set to {hz} Hz and runs at {set}"
    );
    Ok(())
}

fn temperature() -> Outcome {
    /// Thousandths of a degree Celsius: what the chip is specified for ends at 85 degrees, and
    /// firmware may allow a little more.
    const HOTTEST: u32 = 125_000;
    let (now, max) = (ask(&Temperature)?, ask(&MaxTemperature)?);
    diagnostic(format_args!("temperature={now} max={max}"));
    check!(0 < now && now < max && max <= HOTTEST, "{now} of {max}");
    Ok(())
}

fn command_line() -> Outcome {
    /// Room for what the boot loader composes, and for less than any command line has.
    const ROOM: usize = 1024;
    const LITTLE: usize = 4;
    let line = ask(&CommandLine::<ROOM>)?;
    diagnostic(format_args!("{} bytes", line.len()));
    let cut = mailbox()?.request(Via::Streaming, &CommandLine::<LITTLE>);
    if line.len() <= LITTLE {
        check!(cut.is_ok(), "{cut:?}");
        return Err(Stop::Skipped("the command line is too short to be cut"));
    }
    let named = matches!(cut, Err(MailboxError::Truncated { bytes, room: LITTLE, .. })
        if bytes as usize == line.len());
    check!(named, "{LITTLE} bytes of {}: {cut:?}", line.len());
    Ok(())
}

fn both_memories() -> Outcome {
    let mailbox = mailbox()?;
    let [coherent, streaming] = WAYS.map(|via| mailbox.request(via, &ArmMemory));
    let (coherent, streaming) = (check_ok!(coherent), check_ok!(streaming));
    check!(coherent == streaming, "{coherent} and {streaming}");
    Ok(())
}

/// Rounds of the loop: each asks once by either way.
const ROUNDS: u32 = 500;

/// Asks by both ways in turn; returns what was maintained by each.
fn asked(mailbox: &Mailbox<Mmio>) -> Result<[Counters; 2], MailboxError> {
    let mut totals = [Counters::default(); 2];
    for _ in 0..ROUNDS {
        for (total, via) in totals.iter_mut().zip(WAYS) {
            let before = counters();
            mailbox.request(via, &Temperature)?;
            let after = counters();
            total.cleaned += after.cleaned - before.cleaned;
            total.invalidated += after.invalidated - before.invalidated;
            total.cleaned_and_invalidated +=
                after.cleaned_and_invalidated - before.cleaned_and_invalidated;
        }
    }
    Ok(totals)
}

/// What [`asked`] maintains for a device that does not snoop: each request fits the smallest buffer.
fn demanded() -> [Counters; 2] {
    let lines = u64::from(ROUNDS) * (ALIGNMENT / line_size()) as u64;
    let streaming = Counters {
        cleaned: lines,
        invalidated: lines,
        cleaned_and_invalidated: 0,
    };
    [Counters::default(), streaming]
}

fn maintenance() -> Outcome {
    let mailbox = mailbox()?;
    let _maintained = Taken::as_coherent(mailbox.device(), false);
    let done = check_ok!(asked(mailbox));
    check!(
        done == demanded(),
        "{:?} demanded, {done:?} done",
        demanded()
    );
    let [_, streaming] = done;
    diagnostic(format_args!(
        "requests={} lines cleaned={} invalidated={} observed=structural",
        2 * ROUNDS,
        streaming.cleaned,
        streaming.invalidated
    ));
    Ok(())
}

/// The firmware wrongly taken as a master that snoops: nothing is maintained, and that must be found.
fn maintenance_planted() -> Outcome {
    let mailbox = mailbox()?;
    let done = {
        let wrong = Wrong {
            kinds: &[Kind::ReadsDirty, Kind::WritesDirty],
            place: "mailbox::Port::exchange",
        };
        let _provoked = Provoked::begin_planted(format_args!("test=mailbox"), wrong);
        let _forgotten = Taken::as_coherent(mailbox.device(), true);
        check_ok!(asked(mailbox))
    };
    check!(done != demanded(), "forgotten maintenance was not found");
    Ok(())
}

fn unknown() -> Outcome {
    let mailbox = mailbox()?;
    for via in WAYS {
        let named = match mailbox.request(via, &NoSuchTag) {
            Err(error @ (MailboxError::Unknown { .. } | MailboxError::Refused { .. })) => error,
            other => return report::failed(format_args!("{via:?}: {other:?}")),
        };
        diagnostic(format_args!("{named}"));
        check_ok!(mailbox.request(via, &Temperature));
    }
    Ok(())
}

fn masked() -> Outcome {
    let mailbox = mailbox()?;
    let irq = cpu::irq_save();
    let answers = WAYS.map(|via| mailbox.request(via, &Temperature));
    cpu::irq_restore(irq);
    for answer in answers {
        check_ok!(answer);
    }
    Ok(())
}

/// All cores at once, so that they wait for each other.
fn every_core() -> Outcome {
    const REQUESTS: u32 = 50;
    let mailbox = mailbox()?;
    let expected = check_ok!(mailbox.request(Via::Coherent, &ArmMemory));
    let (answers, faults) = (AtomicU32::new(0), AtomicU32::new(0));
    check_ok!(smp::run_on_all(|core| {
        for round in 0..REQUESTS {
            let via = WAYS[(core + round as usize) % WAYS.len()];
            let counter = match mailbox.request(via, &ArmMemory) {
                Ok(memory) if memory == expected => &answers,
                _ => &faults,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let faults = faults.into_inner();
    check!(faults == 0, "{faults} requests failed");
    diagnostic(format_args!(
        "cores={} answers={}",
        smp::online().count(),
        answers.into_inner()
    ));
    check_ok!(mailbox.request(Via::Streaming, &Temperature));
    Ok(())
}
