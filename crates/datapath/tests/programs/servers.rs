//! Web servers in the languages that people write them in; curl and wrk are the clients.

use datapath::abi::{Reason, Totals};
use testbed::{Cgroup, kernel_test};

use crate::common::Result;
use crate::stage::{
    Server, Stage, expect_left_alone, expect_redirected, go, on_both_paths, source,
};
use crate::web::{WEB, Web, by_nginx};

fn serves(cgroup: &Cgroup, server: impl Fn(&Stage) -> Result<Server>) -> Result<Totals> {
    on_both_paths(cgroup, |stage| {
        let web = Web::start(stage, &server)?;
        let seen = web.visit(stage, &format!("http://{}:{WEB}", stage.server.ip()))?;
        web.end()?;
        Ok(seen)
    })
}

fn by_node(stage: &Stage) -> Result<Server> {
    let file = stage.write("web.js", source!("web.js"))?;
    stage.serve(&stage.server, WEB, &["node", &file, &WEB.to_string()])
}

fn by_asyncio(stage: &Stage) -> Result<Server> {
    let file = stage.write("web.py", source!("web.py"))?;
    stage.serve(
        &stage.server,
        WEB,
        &["/usr/bin/python3", &file, &WEB.to_string()],
    )
}

fn by_go(stage: &Stage) -> Result<Server> {
    let web = go(stage, "web.go", source!("web.go"))?;
    stage.serve(&stage.server, WEB, &[&web, &WEB.to_string()])
}

kernel_test! {
    #[ignore = "make test-programs"]
    fn nginx_serves(cgroup: &Cgroup) -> Result {
        expect_redirected(&serves(cgroup, by_nginx)?, 1 << 20);
        Ok(())
    }

    #[ignore = "make test-programs"]
    fn node_serves(cgroup: &Cgroup) -> Result {
        expect_redirected(&serves(cgroup, by_node)?, 1 << 20);
        Ok(())
    }

    #[ignore = "make test-programs"]
    fn asyncio_serves(cgroup: &Cgroup) -> Result {
        expect_redirected(&serves(cgroup, by_asyncio)?, 1 << 20);
        Ok(())
    }

    /// net/http may splice.
    #[ignore = "make test-programs"]
    fn go_serves(cgroup: &Cgroup) -> Result {
        expect_left_alone(&serves(cgroup, by_go)?, Reason::MaySplice, 0);
        Ok(())
    }
}
