//! The machine's clock, where drivers can keep a reference to it.

use hal::dma::Clock;
use hal::drivers::timer::Timer;
use hal::sync::Once;

static CLOCK: Once<Timer> = Once::new();

/// The clock `timer`, for good; the first call wins.
pub fn install(timer: Timer) -> &'static dyn Clock {
    CLOCK.call_once(|| timer)
}
