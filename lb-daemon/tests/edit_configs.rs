//! Edits of one farm: what is asked for happens, and everything else stays as somebody wrote it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what tests share may fail as they do")]

use lb_core::config::model::{Config, FarmName};
use lb_daemon::config::{EditError, FarmEdit, Format, edit, parse};
use serde_json::{Value, json};

const TOML: &str = r#"# Balancer of the office.
[daemon]
interfaces = ["eth0"]   # the only one

# Web
# ===

# The site.
[[farm]]
name = "web"            # do not rename
vip = "192.0.2.10"
# Both, since 2019.
ports = [80, 443]
[[farm.backend]]
address = "10.0.0.11"   # rack 1
[[farm.backend]]
address = "10.0.0.12"   # rack 2
weight = 2              # twice the memory

# Mail, of Anna.
[[farm]]
name = "mail"
vip = "192.0.2.20"
ports = [25]
enabled = false         # moves in May
[[farm.backend]]
address = "10.0.0.21"
# The end.
"#;

const JSON: &str = r#"{
  "daemon": { "interfaces": ["eth0"] },
  "farm": [
    { "name": "web", "vip": "192.0.2.10", "ports": [80,443],
      "backend": [ {"address": "10.0.0.11"}, {"address": "10.0.0.12", "weight": 2} ] },
    {
      "name": "mail",
      "vip": "192.0.2.20", "ports": [25], "enabled": false,
      "backend": [ {"address": "10.0.0.21"} ]
    }
  ]
}
"#;

fn name(text: &str) -> FarmName {
    FarmName::new(text).unwrap()
}

fn apply(text: &str, format: Format, farm: &str, what: FarmEdit) -> (String, Config) {
    let edited = edit(text, format, &name(farm), &what).unwrap();
    let config = parse(&edited, format).unwrap_or_else(|errors| panic!("{errors:#?}\n{edited}"));
    (edited, config)
}

/// The model of a file that holds nothing but these farms.
fn model(farms: Value) -> Config {
    let text = json!({"daemon": {"interfaces": ["eth0"]}, "farm": farms}).to_string();
    parse(&text, Format::Json).unwrap()
}

fn mail() -> Value {
    json!({"name": "mail", "vip": "192.0.2.20", "ports": [25], "enabled": false,
           "backend": [{"address": "10.0.0.21"}]})
}

fn web() -> Value {
    json!({"name": "web", "vip": "192.0.2.10", "ports": [80, 443],
           "backend": [{"address": "10.0.0.11"}, {"address": "10.0.0.12", "weight": 2}]})
}

/// The lines of `old` that `new` lacks, and those that it has besides.
fn difference<'a>(old: &'a str, new: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let lacks = |list: &str, line: &str| !list.lines().any(|other| other == line);
    (
        old.lines().filter(|line| lacks(new, line)).collect(),
        new.lines().filter(|line| lacks(old, line)).collect(),
    )
}

#[test]
fn what_is_put_is_what_is_read() {
    let puts = [
        web(),
        json!({"name": "web", "vip": ["192.0.2.10", "2001:db8::1"], "ports": "*", "check": [], "mode": "dnat"}),
        json!({"vip": "192.0.2.10", "ports": [80, "8000-8010"], "protocol": ["tcp", "udp"], "enabled": true,
               "timeouts": {"syn": "5s", "udp": "1m30s"},
               "backend": [{"address": "10.0.0.12", "port": 8080, "weight": 0}, {"address": "10.0.0.13"},
                           {"name": "eleven", "address": "10.0.0.11"}],
               "check": [{"type": "tcp", "interval": "1s", "port": 80}, {"rise": 5}]}),
        json!({"vip": "192.0.2.10", "ports": [443], "backend": [], "mode": null}),
    ];
    let inline = "farm = [{name = 'mail', vip = '192.0.2.20', ports = [25], enabled = false,\n\
                  backend = [{address = '10.0.0.21'}]}, {name = 'web', vip = '192.0.2.99', ports = '1-9'}]\n\
                  [daemon]\ninterfaces = ['eth0']\n";
    let bare = "[daemon]\ninterfaces = ['eth0']";
    for put in &puts {
        let mut farm = put.clone();
        farm["name"] = json!("web");
        farm.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        for (text, format, expected) in [
            (TOML, Format::Toml, json!([farm, mail()])),
            (JSON, Format::Json, json!([farm, mail()])),
            (inline, Format::Toml, json!([mail(), farm])),
            (bare, Format::Toml, json!([farm])),
            ("farm = []\n[daemon]\ninterfaces = ['eth0']\n", Format::Toml, json!([farm])),
            ("{\"daemon\": {\"interfaces\": [\"eth0\"]}}", Format::Json, json!([farm])),
            ("{\"farm\": [ ], \"daemon\": {\"interfaces\": [\"eth0\"]}}", Format::Json, json!([farm])),
        ] {
            let (once, config) = apply(text, format, "web", FarmEdit::Put(put.clone()));
            assert_eq!(config, model(expected), "{put}\n{once}");
            let (twice, _) = apply(&once, format, "web", FarmEdit::Put(put.clone()));
            assert_eq!(once, twice, "putting it again changes nothing");
        }
    }
}

#[test]
fn what_is_put_unchanged_changes_no_byte_of_toml() {
    assert_eq!(apply(TOML, Format::Toml, "web", FarmEdit::Put(web())).0, TOML);
    assert_eq!(apply(TOML, Format::Toml, "mail", FarmEdit::Put(mail())).0, TOML);
}

#[test]
fn a_put_in_toml_touches_only_what_it_changes() {
    let mut farm = web();
    farm["ports"] = json!([80]);
    farm["backend"] = json!([{"address": "10.0.0.12", "weight": 3}, {"address": "10.0.0.13"},
                             {"address": "10.0.0.11"}]);
    let (text, config) = apply(TOML, Format::Toml, "web", FarmEdit::Put(farm.clone()));
    assert_eq!(config, model(json!([farm, mail()])));
    let (gone, come) = difference(TOML, &text);
    assert_eq!(gone, ["ports = [80, 443]", "weight = 2              # twice the memory"]);
    assert_eq!(
        come,
        ["ports = [80]", "weight = 3              # twice the memory", "address = \"10.0.0.13\""],
        "{text}"
    );
}

#[test]
fn a_new_farm_comes_last_and_looks_like_written_by_hand() {
    let farm = json!({"ports": [53], "vip": "192.0.2.30", "protocol": "udp", "check": [],
                      "backend": [{"weight": 1, "address": "10.0.0.31"}, {"address": "10.0.0.32"}]});
    let (text, config) = apply(TOML, Format::Toml, "dns", FarmEdit::Put(farm.clone()));
    assert_eq!(config.farms.len(), 3);
    let new = "\n[[farm]]\nname = \"dns\"\nvip = \"192.0.2.30\"\nports = [53]\nprotocol = \"udp\"\ncheck = []\n\
               [[farm.backend]]\naddress = \"10.0.0.31\"\nweight = 1\n[[farm.backend]]\naddress = \"10.0.0.32\"\n";
    assert_eq!(text, TOML.replace("# The end.\n", &format!("{new}# The end.\n")));
    let (text, config) = apply(JSON, Format::Json, "dns", FarmEdit::Put(farm));
    assert_eq!(config.farms.len(), 3);
    let (gone, _) = difference(JSON, &text);
    assert!(gone.is_empty(), "{text}");
    assert!(
        text.contains("    },\n    {\n      \"name\": \"dns\",\n      \"vip\": \"192.0.2.30\",\n"),
        "{text}"
    );
}

#[test]
fn a_deleted_farm_takes_its_own_comment_along_and_no_other() {
    let (text, config) = apply(TOML, Format::Toml, "web", FarmEdit::Delete);
    assert_eq!(config, model(json!([mail()])));
    let start = TOML.find("# The site.").unwrap();
    let end = TOML.find("\n# Mail, of Anna.").unwrap();
    assert_eq!(text, format!("{}{}", &TOML[..start], &TOML[end + 1..]));
    let (text, config) = apply(&text, Format::Toml, "mail", FarmEdit::Delete);
    assert!(config.farms.is_empty());
    assert!(text.contains("# Web\n# ===\n") && text.ends_with("# The end.\n"), "{text}");
    assert!(!text.contains("Anna"), "{text}");
}

#[test]
fn json_loses_the_deleted_farm_and_one_comma() {
    let (without_web, config) = apply(JSON, Format::Json, "web", FarmEdit::Delete);
    assert_eq!(config, model(json!([mail()])));
    let start = JSON.find("{ \"name\": \"web\"").unwrap();
    let end = JSON.find("{\n      \"name\": \"mail\"").unwrap();
    assert_eq!(without_web, format!("{}{}", &JSON[..start], &JSON[end..]));
    let (_, config) = apply(JSON, Format::Json, "mail", FarmEdit::Delete);
    assert_eq!(config, model(json!([web()])));
    let (empty, config) = apply(&without_web, Format::Json, "mail", FarmEdit::Delete);
    assert!(config.farms.is_empty());
    assert!(empty.contains("\"farm\": []"), "{empty}");
}

#[test]
fn enabling_changes_one_word() {
    let on = FarmEdit::Enable(true);
    let off = FarmEdit::Enable(false);
    let (text, config) = apply(TOML, Format::Toml, "mail", on.clone());
    assert!(config.farms[1].enabled);
    assert_eq!(text, TOML.replace("enabled = false ", "enabled = true "));
    let (text, config) = apply(TOML, Format::Toml, "web", off.clone());
    assert!(!config.farms[0].enabled);
    assert_eq!(text, TOML.replace("[80, 443]\n", "[80, 443]\nenabled = false\n"));
    assert_eq!(apply(TOML, Format::Toml, "web", on.clone()).0, TOML);

    let (text, config) = apply(JSON, Format::Json, "mail", on.clone());
    assert!(config.farms[1].enabled);
    assert_eq!(text, JSON.replace("\"enabled\": false", "\"enabled\": true"));
    let (text, config) = apply(JSON, Format::Json, "web", off);
    assert!(!config.farms[0].enabled);
    assert_eq!(text, JSON.replace("2} ] },", "2} ], \"enabled\": false },"));
    assert_eq!(apply(JSON, Format::Json, "web", on).0, JSON);
}

#[test]
fn an_edit_that_makes_no_sense_is_refused() {
    for (text, format) in [(TOML, Format::Toml), (JSON, Format::Json)] {
        for what in [FarmEdit::Delete, FarmEdit::Enable(true)] {
            let refusal = edit(text, format, &name("wbe"), &what).unwrap_err();
            assert_eq!(
                refusal,
                EditError::NoFarm { farm: name("wbe"), there: vec!["web".to_owned(), "mail".to_owned()] }
            );
        }
        let mut renamed = web();
        renamed["name"] = json!("other");
        for value in [json!([]), json!("web"), renamed] {
            let refusal = edit(text, format, &name("web"), &FarmEdit::Put(value)).unwrap_err();
            assert!(matches!(&refusal, EditError::Invalid(errors) if errors.len() == 1), "{refusal}");
        }
        let broken = text.replacen('"', "", 1);
        let refusal = edit(&broken, format, &name("web"), &FarmEdit::Delete).unwrap_err();
        assert!(matches!(&refusal, EditError::Invalid(errors) if errors[0].at.is_some()), "{refusal}");
        let odd = if format == Format::Toml { "farm = 1\n" } else { "{\"farm\": {}}" };
        let refusal = edit(odd, format, &name("web"), &FarmEdit::Delete).unwrap_err();
        assert!(matches!(refusal, EditError::NoList), "{refusal}");
    }
}

#[test]
fn tables_of_a_farm_that_stand_apart_stay_readable() {
    let text = "[[farm]]\nname = 'a'\nvip = '192.0.2.1'\nports = 80\n[farm.timeouts]\nsyn = '5s' # quick\n\
                [daemon]\ninterfaces = ['eth0']\n[[farm]]\nname = 'b'\nvip = '192.0.2.2'\nports = 80\n\
                timeouts.fin = '1s'\n";
    let put = json!({"vip": "192.0.2.1", "ports": [81], "timeouts": {"syn": "5s", "udp": "9s"}});
    let (edited, config) = apply(text, Format::Toml, "a", FarmEdit::Put(put));
    assert_eq!(config.farms[0].timeouts.udp.as_secs(), 9);
    assert_eq!(config.farms[1].timeouts.fin.as_secs(), 1);
    assert!(edited.contains("# quick"), "{edited}");
    let put = json!({"vip": "192.0.2.2", "ports": [81], "timeouts": {"fin": "2s", "udp": "9s"}});
    let (edited, config) = apply(text, Format::Toml, "b", FarmEdit::Put(put));
    assert_eq!(config.farms[1].timeouts.fin.as_secs(), 2, "{edited}");
    assert_eq!(config.farms[1].timeouts.udp.as_secs(), 9, "{edited}");
}

#[test]
fn line_ends_and_a_byte_order_mark_are_kept() {
    for (text, format) in [(TOML, Format::Toml), (JSON, Format::Json)] {
        let foreign = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
        let mut farm = web();
        farm["ports"] = json!([80]);
        let new = json!({"vip": "192.0.2.30", "ports": [53], "backend": [{"address": "10.0.0.31"}]});
        for (name, what) in [
            ("web", FarmEdit::Put(farm)),
            ("new", FarmEdit::Put(new)),
            ("web", FarmEdit::Enable(false)),
            ("mail", FarmEdit::Delete),
        ] {
            let (plain, expected) = apply(text, format, name, what.clone());
            let (edited, config) = apply(&foreign(text), format, name, what);
            assert_eq!(edited, foreign(&plain));
            assert_eq!(config, expected);
        }
    }
}
