//! The wire changes by addition only: whatever was recorded once must still be there, with its number and type.

use std::{collections::BTreeSet, env, fs};

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");

#[test]
fn nothing_on_the_wire_was_renumbered_retyped_or_removed() {
    let now = lines();
    if env::var_os("MAINSTAY_RECORD").is_some() {
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        fs::write(GOLDEN, text).expect("the golden file can be written");
    }
    let golden: BTreeSet<String> = fs::read_to_string(GOLDEN).expect("golden.txt").lines().map(str::to_owned).collect();
    let lost: Vec<_> = golden.difference(&now).collect();
    assert!(lost.is_empty(), "older programs rely on these: {lost:#?}");
    let fresh: Vec<_> = now.difference(&golden).collect();
    assert!(fresh.is_empty(), "new on the wire; record it with MAINSTAY_RECORD=1: {fresh:#?}");
}

fn lines() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(mainstay_proto::DESCRIPTOR).expect("a descriptor");
    let mut lines = BTreeSet::new();
    for file in &files.file {
        file.message_type.iter().for_each(|message| of_message("", message, &mut lines));
        file.enum_type.iter().for_each(|wire| of_enum("", wire, &mut lines));
        file.service.iter().for_each(|service| of_service(service, &mut lines));
    }
    lines
}

fn of_message(parent: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{parent}{}", message.name());
    for field in &message.field {
        let (kind, of) = (field.r#type(), field.type_name());
        let (label, optional) = (field.label(), field.proto3_optional());
        lines.insert(format!(
            "{name}.{} = {} {label:?} {kind:?} {of} optional={optional}",
            field.name(),
            field.number()
        ));
    }
    message.nested_type.iter().for_each(|nested| of_message(&format!("{name}."), nested, lines));
    message.enum_type.iter().for_each(|nested| of_enum(&format!("{name}."), nested, lines));
}

fn of_enum(parent: &str, wire: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &wire.value {
        lines.insert(format!("{parent}{}.{} = {}", wire.name(), value.name(), value.number()));
    }
}

fn of_service(service: &ServiceDescriptorProto, lines: &mut BTreeSet<String>) {
    for method in &service.method {
        let (input, output) = (method.input_type(), method.output_type());
        let streams = (method.client_streaming(), method.server_streaming());
        lines.insert(format!("{}/{} {input} -> {output} {streams:?}", service.name(), method.name()));
    }
}
