//! The configuration: what is read, in which order, and what is said of mistakes.
//!
//! Expected texts are in `snapshots/`; `INSTA_UPDATE=always` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use beeline::config::{self, Cgroup, Config, Error, Origin, Place, Rule, Sources};
use datapath::socket::Options;
use serde_json::Value;
use tempfile::TempDir;

/// A directory with configuration files.
struct Dir(TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().expect("the temporary directory is writable");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("it is in the directory")).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Config, Error> {
        Sources::of(self.0.path()).load()
    }

    /// What is complained of, with the same paths in every run.
    fn complaint(&self) -> String {
        let error = self.load().expect_err("it is wrong").to_string();
        self.anonymous(&error)
    }

    fn anonymous(&self, text: &str) -> String {
        text.replace(self.0.path().to_str().expect("ASCII"), "/etc/beeline")
    }
}

fn beeline(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_beeline"))
        .args(args)
        .output()
        .expect("beeline runs")
}

fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

fn one_file(text: &str) -> Result<Config, Error> {
    Dir::new(&[("config.toml", text)]).load()
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_to_do() {
    for (name, text) in [
        ("unknown_setting", "[socket]\nconections = 10\n"),
        ("unknown_and_like_nothing", "colour = \"red\"\n"),
        ("unknown_table", "[sokcet]\nconnections = 10\n"),
        (
            "setting_of_another_table",
            "queue_limit = \"4MiB\"\n\n[http]\ncgroup = \"/x\"\n",
        ),
        ("table_that_is_none", "http = \"off\"\n"),
        ("setting_that_is_a_table", "[cgroup]\npath = \"/x\"\n"),
        (
            "wrong_types",
            "cgroup = 7\n\n[socket]\nconnections = \"many\"\nqueue_limit = true\nmemory_limit = 1.5\n\
             never_splices = \"/x\"\n\n[http]\nlisten = 9474\n",
        ),
        (
            "out_of_range",
            "[socket]\nconnections = 0\nqueue_limit = \"4GiB\"\nmemory_limit = -1\n",
        ),
        ("group", "[control]\ngroup = \"no-such-group\"\n"),
        ("no_size", "[socket]\nqueue_limit = \"4 bananas\"\n"),
        (
            "bad_paths",
            "cgroup = \"apps\"\n\n[socket]\nnever_splices = [\"/usr/bin/*\", \"python3\", \"/usr/[\", 7]\n",
        ),
        ("no_address", "[http]\nlisten = \"localhost:9474\"\n"),
        (
            "duplicates",
            "cgroup = \"host\"\ncgroup = \"/x\"\n\n[http]\nlisten = \"off\"\n\n[http]\n",
        ),
        ("no_toml", "cgroup = [\n"),
        ("no_quotes", "[http]\nlisten = off\n"),
        (
            "rule_fields",
            "[[rule]]\npaht = \"kernel\"\nlocal = { ports = 80, colour = 1 }\nremote = \"10.0.0.0/8\"\n",
        ),
        (
            "rule_values",
            "[[rule]]\nname = 7\npath = \"packet\"\n\n[rule.local]\ncgroup = \"system.slice\"\n\
             unit = [\"nginx\", \"a.service\"]\ncontainer = \"[\"\nexecutable = \"nginx\"\nuid = \"root\"\n\
             cidr = [\"10.0.0.1/8\", \"10.0.0.0/33\", \"localhost\"]\n\
             port = [0x50, \"90-80\", 70000, \"http\"]\n",
        ),
        (
            "rule_path",
            "[[rule]]\npath = \"fast\"\n\n[[rule]]\nlocal = { cgroup = [] }\n\n[defaults]\npath = true\n",
        ),
        (
            "rule_options",
            "[[rule]]\npath = \"socket\"\nadopt = \"no\"\nqueue_limit = \"0B\"\n\n[[rule]]\npath = \"kernel\"\n\
             adopt = false\nqueue_limit = \"1MiB\"\n\n[defaults]\nadopt = 1\n",
        ),
        (
            "rule_containers",
            "[[rule]]\npath = \"kernel\"\n\n[rule.local]\ncontainer = [\"web\", 7, \"\"]\nlabel = \"app=shop\"\n\
             labels = \"app=shop\"\npod = \"shop/web\"\n\n[rule.remote]\n\
             labels = { app = 7, tier = [], com.docker.project = \"x\", \"a.b\" = [\"x\", \"[\"] }\n\
             pod = { namespace = \"\", labels = { app = \"shop\" }, nmae = \"web\" }\n\n\
             [[rule]]\npath = \"kernel\"\nlocal = { labels = {}, pod = {} }\n",
        ),
        (
            "no_sockets",
            "[containers]\nsockets = [\"unix:///run/docker.sock\", \"docker.sock\", 7]\n\
             socket = \"/run/docker.sock\"\n",
        ),
        ("rule_that_is_none", "rule = \"kernel\"\n"),
        (
            "rules_by_another_name",
            "[[rules]]\npath = \"kernel\"\n\n[default]\npath = \"kernel\"\n",
        ),
        ("no_value", "[socket]\nconnections\nqueue_limit = 0\n"),
    ] {
        let dir = Dir::new(&[("config.toml", text)]);
        insta::assert_snapshot!(name, dir.complaint());
    }
}

#[test]
fn mistakes_in_several_files_are_told_at_once() {
    let dir = Dir::new(&[
        ("config.toml", "x = 1\n"),
        ("conf.d/20-b.toml", "\n[http]\nlisten = \"\"\n"),
        ("conf.d/10-a.toml", "[socket]\ny = 2\n"),
    ]);
    insta::assert_snapshot!("several_files", dir.complaint());
}

#[test]
fn there_are_at_most_1024_rules() {
    let rules = |count| "[[rule]]\npath = \"kernel\"\n".repeat(count);
    assert_eq!(one_file(&rules(1024)).unwrap().rules.len(), 1024);
    let complaint = one_file(&rules(1025)).unwrap_err().to_string();
    assert!(complaint.contains("more than 1024 rules"), "{complaint}");
    assert!(complaint.contains("config.toml:2049:1"), "{complaint}");
}

#[test]
fn rules_of_all_files_follow_each_other() {
    let rule = |name| format!("[[rule]]\nname = \"{name}\"\npath = \"kernel\"\n");
    let dir = Dir::new(&[
        ("config.toml", &(rule("a") + &rule("b"))),
        ("conf.d/20.toml", &rule("d")),
        ("conf.d/10.toml", &rule("c")),
    ]);
    let rules = dir.load().unwrap().rules;
    let names: Vec<_> = rules
        .iter()
        .filter_map(|rule| rule.name.as_deref())
        .collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(rules[1].place.line, 4);
    assert_eq!(rules[3].place.file, dir.path("conf.d/20.toml"));
}

#[test]
fn the_rules_in_the_docs_have_no_mistakes() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let config = Sources::of(&docs.join("rules.toml")).load().unwrap();
    assert!(config.rules.len() > 8, "{:?}", config.rules);
    let page = fs::read_to_string(docs.join("rules.md")).unwrap();
    let examples = page.split("```toml\n").skip(1);
    for example in examples.map(|text| text.split("```").next().unwrap()) {
        one_file(example).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn nothing_set_is_the_default() {
    let config = one_file("").unwrap();
    assert_eq!(config, Config::default());
    let (options, defaults) = (config.options(), Options::default());
    assert_eq!(options.queue_limit, defaults.queue_limit);
    assert_eq!(options.memory_limit, defaults.memory_limit);
}

#[test]
fn sizes_have_units_or_are_bytes() {
    let config = one_file("[socket]\nqueue_limit = \"2MiB\"\nmemory_limit = 0x10000\n").unwrap();
    assert_eq!(config.options().queue_limit, 2 << 20);
    let pages = (64 << 10) / rustix::param::page_size() as u64;
    assert_eq!(config.options().memory_limit, pages);
}

#[test]
fn the_limit_for_the_host_is_never_above_the_default() {
    let config = one_file("[socket]\nmemory_limit = \"64TiB\"\n").unwrap();
    let most = Options::default().memory_limit;
    assert_eq!(config.options().memory_limit, most);
}

#[test]
fn executables_are_named_by_patterns() {
    let config = one_file("[socket]\nnever_splices = [\"/usr/bin/python3*\"]\n").unwrap();
    assert!(config.never_splices(Path::new("/usr/bin/python3.12")));
    assert!(!config.never_splices(Path::new("/usr/sbin/haproxy")));
}

#[test]
fn a_later_file_replaces_what_an_earlier_one_set() {
    let dir = Dir::new(&[
        (
            "config.toml",
            "[socket]\nconnections = 1\nqueue_limit = 1\n",
        ),
        (
            "conf.d/20-b.toml",
            "[socket]\nnever_splices = [\"/b\"]\nqueue_limit = 3\n",
        ),
        (
            "conf.d/10-a.toml",
            "[socket]\nnever_splices = [\"/a\"]\nqueue_limit = 2\n",
        ),
        ("conf.d/.30-hidden.toml", "[socket]\nqueue_limit = 4\n"),
        ("conf.d/40-other.conf", "no TOML"),
    ]);
    let config = dir.load().unwrap();
    assert_eq!(config.connections.value.count(), 1);
    assert_eq!(config.queue_limit.value.bytes(), 3);
    let origin = Origin::File {
        file: dir.path("conf.d/20-b.toml"),
        line: 3,
    };
    assert_eq!(config.queue_limit.origin, origin);
    assert!(config.never_splices(Path::new("/b")) && !config.never_splices(Path::new("/a")));
}

#[test]
fn a_file_that_is_named_is_read_alone() {
    let dir = Dir::new(&[
        ("config.toml", "[socket]\nqueue_limit = 1\n"),
        ("conf.d/10.toml", "[socket]\nqueue_limit = 2\n"),
    ]);
    let config = Sources::of(&dir.path("config.toml")).load().unwrap();
    assert_eq!(config.queue_limit.value.bytes(), 1);
    let missing = dir.path("missing");
    let error = Sources::of(&missing).load().unwrap_err().to_string();
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
}

#[test]
fn a_flag_beats_every_file() {
    let dir = Dir::new(&[("config.toml", "cgroup = \"/a\"\n")]);
    let sources = Sources {
        cgroup: Some("/b".into()),
        ..Sources::of(&dir.path(""))
    };
    let cgroup = sources.load().unwrap().cgroup;
    assert_eq!(cgroup.value, Cgroup::Dir("/b".into()));
    assert_eq!(cgroup.origin, Origin::Flag { flag: "--cgroup" });
}

const EVERYTHING: &str = "cgroup = \"/a \\\"quoted\\\" dir\"\n
[socket]\nconnections = 7\nqueue_limit = \"2MiB\"\nmemory_limit = 65537\nnever_splices = [\"/a*\", \"/b\"]\n
[containers]\nsockets = [\"/x y\"]\n
[http]\nlisten = \"[::1]:80\"\n";

#[test]
fn show_names_the_origin_of_every_setting() {
    let dir = Dir::new(&[
        ("config.toml", EVERYTHING),
        ("conf.d/10.toml", "[http]\nlisten = \"off\"\n"),
    ]);
    let args = ["config", "show", "--config", dir.0.path().to_str().unwrap()];
    let shown = stdout(beeline(&[&args[..], &["--cgroup", "/flag"]].concat()));
    insta::assert_snapshot!("show", dir.anonymous(&shown));
    let json: Value =
        serde_json::from_str(&stdout(beeline(&[&args[..], &["--json"]].concat()))).unwrap();
    assert_eq!(json["files"].as_array().unwrap().len(), 2);
    let listen = &json["settings"][8];
    assert_eq!(
        (&listen["key"], &listen["from"]),
        (&"http.listen".into(), &"file".into()),
        "{listen}"
    );
    assert_eq!(listen["line"], 2);
    assert_eq!(
        json["settings"].as_array().unwrap().len(),
        Config::default().describe().len()
    );
}

fn place() -> Place {
    Place {
        file: "any".into(),
        line: 1,
    }
}

#[test]
fn what_show_prints_is_the_same_configuration() {
    let values = |config: &Config| {
        config
            .describe()
            .into_iter()
            .map(|one| one.value)
            .collect::<Vec<_>>()
    };
    let containers = "[[rule]]\npath = \"kernel\"\n[rule.local]\ncontainer = [\"web\", \"1f*\"]\n\
                      labels = { app = \"\", \"a.b\" = [\"x\", \"y=z\"] }\n\
                      [rule.remote]\npod = { namespace = \"shop\", name = [\"a\", \"b-*\"] }\n";
    for text in [
        EVERYTHING,
        "",
        containers,
        include_str!("../../../docs/rules.toml"),
    ] {
        let config = one_file(text).unwrap();
        let again = one_file(&config::toml(&config)).unwrap();
        assert_eq!(values(&config), values(&again));
        let rules = |config: &Config| {
            let all = config.rules.iter();
            all.map(|rule| Rule {
                place: place(),
                ..rule.clone()
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(rules(&config), rules(&again));
    }
}

#[test]
fn check_exits_with_1_on_mistakes_and_goes_on_to_the_next_file() {
    let dir = Dir::new(&[
        ("bad.toml", "x = 1\n"),
        ("worse.toml", "["),
        ("good.toml", ""),
    ]);
    let paths =
        ["bad.toml", "worse.toml", "good.toml"].map(|name| dir.path(name).display().to_string());
    let output = beeline(&["config", "check", &paths[0], &paths[1], &paths[2]]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("bad.toml:1:1") && said.contains("worse.toml:1:"),
        "{said}"
    );
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("good.toml: no mistakes")
    );
    assert!(beeline(&["config", "check", &paths[2]]).status.success());
}

#[test]
fn the_example_in_the_docs_is_the_programs_and_has_no_mistakes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.toml");
    let example = fs::read_to_string(path).expect("docs/config.toml is there");
    assert_eq!(
        example,
        config::example(),
        "write it anew: beeline config example > docs/config.toml"
    );
    assert_eq!(
        one_file(&example).unwrap(),
        Config::default(),
        "all is commented out"
    );
    let settings: Vec<_> = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .collect();
    let used = one_file(&settings.join("\n")).unwrap().describe();
    assert!(
        used.iter().all(|setting| setting.origin != Origin::Default),
        "{used:?}"
    );
}
