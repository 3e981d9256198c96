//! `beeline hist` shows what the test itself sent.

mod common;

use std::fs;

use common::{Beeline, SOON, pair};
use datapath::abi::Hist;
use serde_json::{Value, json};
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

/// As JSON shows a histogram of bytes.
fn bytes(kind: Hist, count: u64, sum: u64, buckets: &[(u64, u64)]) -> Value {
    let buckets: Vec<_> = buckets
        .iter()
        .map(|(up_to, count)| json!({ "up_to": up_to, "count": count }))
        .collect();
    json!({ "about": kind.about(), "unit": "bytes", "count": count, "sum": sum, "buckets": buckets })
}

kernel_test! {
    fn hist_shows_the_host_pairs_and_single_connections(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        let (other, _server) = pair();
        stream::send(&client, 1, 10_000, 100).unwrap();
        stream::send(&server, 2, 500, 500).unwrap();
        stream::send(&other, 3, 4, 4).unwrap();
        let host = beeline.json(&["hist", "--json"]);
        let all = [(4, 1), (8, 0), (16, 0), (32, 0), (64, 0), (128, 100), (256, 0), (512, 1)];
        assert_eq!(host["redirected_message"], bytes(Hist::Redirected, 102, 10_504, &all));
        assert_eq!((&host["kernel_path_message"], &host["handshake"]["count"]), (&Value::Null, &2.into()));
        let pairs = beeline.json(&["hist", "--pairs", "--json"]);
        let name = format!("/{}", cgroup.path().file_name().unwrap().to_str().unwrap());
        let found = &pairs.as_array().unwrap()[0];
        assert_eq!((&found["client"], &found["server"], &found["connections"]), (&json!(name), &json!(name), &json!(2)));
        assert_eq!(found["histograms"]["redirected_message"], host["redirected_message"]);
        let address = client.local_addr().unwrap().to_string();
        let one = beeline.json(&["hist", &address, "--json"]);
        let (c, s) = (&one[0]["client"], &one[0]["server"]);
        assert_eq!((one.as_array().unwrap().len(), &c["local"]), (1, &json!(address)));
        assert_eq!(c["sent"]["redirected_message"], bytes(Hist::Redirected, 100, 10_000, &[(128, 100)]));
        assert_eq!(s["sent"]["redirected_message"], bytes(Hist::Redirected, 1, 500, &[(512, 1)]));
        assert!(beeline.fails(&["hist", "1.2.3.4:5"]).contains("beeline conns"));
    }

    fn hist_fits_a_terminal(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        assert!(beeline.ok(&["hist"]).contains("nothing was counted"));
        let (client, _server) = pair();
        stream::send(&client, 1, 10_000, 100).unwrap();
        let address = client.local_addr().unwrap().to_string();
        for args in [&["hist"][..], &["hist", "--pairs"], &["hist", &address]] {
            let text = beeline.ok(args);
            assert!(text.contains("redirected_message") && text.contains("100 counted, 100 B on average"), "{text}");
            assert!(text.contains("128 B         100  ####"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }

    fn histograms_are_switched_off_and_on_by_a_reload(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let config = std::env::temp_dir().join(format!("{}.toml", beeline.instance));
        let keep = |kinds: &str| fs::write(&config, format!("[observe]\nhistograms = [{kinds}]\n[http]\nlisten = \"off\"")).unwrap();
        keep("");
        let _agent = beeline.agent_with(&["--config", config.to_str().unwrap()]);
        let (client, server) = pair();
        let send = || {
            stream::send(&client, 1, 1_000, 1_000).unwrap();
            traffic::read_all(&server, &mut [0; 1_000]).unwrap();
            beeline.json(&["hist", "--json"])
        };
        assert_eq!(send(), json!({}));
        keep("\"queue\"");
        beeline.ok(&["reload"]);
        assert_eq!(send(), json!({ "queue": bytes(Hist::Queue, 1, 0, &[(0, 1)]) }));
        keep("");
        beeline.ok(&["reload"]);
        assert_eq!(send(), json!({ "queue": bytes(Hist::Queue, 1, 0, &[(0, 1)]) }));
        fs::remove_file(config).unwrap();
        drop((client, server));
        let closed = || beeline.maps().totals().unwrap().closed == 2;
        wait_for("the end", SOON, closed).unwrap();
        assert_eq!(beeline.json(&["hist", "--json"])["queue"]["count"], 1);
    }
}
