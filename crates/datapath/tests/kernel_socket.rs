//! Sockets of the kernel itself are never enrolled (invariant 2). Nothing in a usual kernel listens on TCP by itself, so
//! that this runs in `make test-kernels`, with the module `rds_tcp`.

mod common;

use std::process::Command;

use common::{Bed, Result, expect_reasons};
use datapath::abi::Reason;
use testbed::{Cgroup, Node, kernel_test};

/// net/rds/tcp.h: RDS_TCP_PORT. Its listener is made with each network namespace, by the process that makes that.
const PORT: u16 = 16385;

kernel_test! {
    #[ignore = "needs a kernel with the module rds_tcp"]
    fn client_of_the_kernel_is_left_alone(cgroup: &Cgroup) -> Result {
        assert!(Command::new("modprobe").arg("rds_tcp").status()?.success());
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        drop(client.connect((web.ip(), PORT))?);
        bed.wait_reason(Reason::KernelSocket, 1)?;
        let totals = bed.emptied()?;
        assert_eq!(totals.paired, 0);
        // The kernel may have tried the way back as well.
        expect_reasons(&totals, &[(Reason::KernelSocket, totals.count(Reason::KernelSocket))]);
        Ok(())
    }
}
