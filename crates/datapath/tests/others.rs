//! Other sock_ops programs hear of their connections what they have asked for, whatever becomes of these here.

mod common;

use common::other::Other;
use common::stage::Stage;
use common::{Bed, Result, talk};
use datapath::adopt::Adopter;
use testbed::{Cgroup, kernel_test};

kernel_test! {
    fn other_program_goes_on_hearing_of_a_connection_that_left(cgroup: &Cgroup) -> Result {
        let other = Other::on(cgroup)?;
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let (a, b) = stage.pair()?;
        talk(&a, &b)?;
        other.hears_what_left(&bed, &a, &b)
    }

    fn other_program_goes_on_hearing_of_one_that_was_adopted(cgroup: &Cgroup) -> Result {
        let other = Other::on(cgroup)?;
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        common::stage::unblock(&pair)?;
        Adopter::load(&bed)?.look()?;
        other.hears_what_left(&bed, &pair.0, &pair.1)
    }
}
