//! How much memory a message will take, before it is decoded: an empty row is two bytes on the wire and hundreds in
//! memory.

use std::{collections::HashMap, sync::LazyLock};

use prost::{Message as _, encoding::decode_varint};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

/// What a message may unfold to. The largest honest ones, whole tables of small rows, stay below a half.
pub const MAX_UNFOLDED_BYTES: usize = 32 * 1024 * 1024;

/// A text, a list, or an entry of a list of texts.
const VECTOR: usize = 24;
/// A map.
const MAP: usize = 48;
/// A number, also one that may be absent.
const NUMBER: usize = 16;

/// What a field brings.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// A message: the memory of one, and what is in it.
    Message(usize),
    /// A text that is one of many.
    Entry,
    /// Numbers, or one text: the memory is about what is on the wire, packed ones eight times that.
    Plain { packed: bool },
}

/// A message's fields by number, and the memory of an empty one.
#[derive(Clone, Debug, Default)]
struct Shape {
    fields: HashMap<u32, Field>,
    bytes: usize,
}

/// Every message of the protos.
struct Shapes {
    names: HashMap<String, usize>,
    shapes: Vec<Shape>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(crate::DESCRIPTOR).unwrap_or_default();
    let mut messages = Vec::new();
    for file in &files.file {
        file.message_type.iter().for_each(|message| collect(&format!(".{}", file.package()), message, &mut messages));
    }
    let names: HashMap<_, _> = messages.iter().enumerate().map(|(n, (name, _))| (name.clone(), n)).collect();
    let shapes = (0..messages.len()).map(|n| shape(n, &messages, &names)).collect();
    Shapes { names, shapes }
});

fn collect<'a>(parent: &str, message: &'a DescriptorProto, all: &mut Vec<(String, &'a DescriptorProto)>) {
    let name = format!("{parent}.{}", message.name());
    message.nested_type.iter().for_each(|nested| collect(&name, nested, all));
    all.push((name, message));
}

fn shape(n: usize, messages: &[(String, &DescriptorProto)], names: &HashMap<String, usize>) -> Shape {
    let fields = &messages[n].1.field;
    let kind = |field: &FieldDescriptorProto| match field.r#type() {
        Type::Message => names.get(field.type_name()).map_or(Field::Entry, |n| Field::Message(*n)),
        Type::String | Type::Bytes if is_repeated(field) => Field::Entry,
        Type::String | Type::Bytes => Field::Plain { packed: false },
        _ => Field::Plain { packed: is_repeated(field) },
    };
    Shape {
        fields: fields.iter().map(|field| (field.number().unsigned_abs(), kind(field))).collect(),
        bytes: memory(n, messages, names, 0),
    }
}

fn is_repeated(field: &FieldDescriptorProto) -> bool {
    field.label() == prost_types::field_descriptor_proto::Label::Repeated
}

/// The memory of an empty message: messages within it lie in it.
fn memory(n: usize, messages: &[(String, &DescriptorProto)], names: &HashMap<String, usize>, depth: usize) -> usize {
    let of = |field: &FieldDescriptorProto| match (field.r#type(), names.get(field.type_name())) {
        (Type::Message, Some(inner)) => {
            let is_map = messages[*inner].1.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry);
            match (is_repeated(field), is_map) {
                (true, true) => MAP,
                (true, false) => VECTOR,
                (false, _) if depth > 8 => VECTOR,
                (false, _) => 8 + memory(*inner, messages, names, depth + 1),
            }
        }
        (Type::String | Type::Bytes, _) => VECTOR,
        _ if is_repeated(field) => VECTOR,
        _ => NUMBER,
    };
    messages[n].1.field.iter().map(of).sum::<usize>() + 8
}

/// About how many bytes of memory a message of that name (`mainstay.v1.Report`) takes, counted up to
/// [`MAX_UNFOLDED_BYTES`]. What is no message counts as far as it can be read: decoding it fails at the same place.
/// Groups, which no version of ours sends, count as too much.
#[must_use]
pub fn unfolded(name: &str, bytes: &[u8]) -> usize {
    let shapes = &*SHAPES;
    let Some(shape) = shapes.names.get(&format!(".{name}")) else { return bytes.len() };
    let mut total = shapes.shapes[*shape].bytes;
    walk(shapes, *shape, bytes, &mut total, 0);
    total
}

/// `None` where nothing more can be read, or enough was counted.
fn walk(shapes: &Shapes, shape: usize, mut bytes: &[u8], total: &mut usize, depth: usize) -> Option<()> {
    while !bytes.is_empty() {
        let tag = decode_varint(&mut bytes).ok()?;
        let field = u32::try_from(tag >> 3).ok().and_then(|number| shapes.shapes[shape].fields.get(&number));
        match tag & 7 {
            0 => {
                decode_varint(&mut bytes).ok()?;
                // A list of numbers that is not packed.
                *total += 8;
            }
            1 => bytes = bytes.get(8..)?,
            5 => bytes = bytes.get(4..)?,
            2 => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                match field {
                    Some(Field::Message(inner_shape)) if depth < 16 => {
                        *total += shapes.shapes[*inner_shape].bytes;
                        walk(shapes, *inner_shape, inner, total, depth + 1)?;
                    }
                    Some(Field::Message(_) | Field::Entry) => *total += VECTOR + length,
                    Some(Field::Plain { packed: true }) => *total += 8 * length,
                    Some(Field::Plain { packed: false }) => *total += length,
                    None => {}
                }
            }
            _ => {
                *total = usize::MAX;
                return None;
            }
        }
        if *total > MAX_UNFOLDED_BYTES {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MAX_MESSAGE_BYTES, v1 as pb};

    const REPORT: &str = "mainstay.v1.Report";

    #[test]
    fn whatever_is_little_on_the_wire_and_much_in_memory_is_seen() {
        let many = MAX_MESSAGE_BYTES / 2 - 64;
        let containers = pb::ContainerTable { changed: vec![pb::Container::default(); many], ..Default::default() };
        let tasks = pb::SwarmView { tasks: vec![pb::SwarmTask::default(); many], ..Default::default() };
        let aliases = pb::Disk { aliases: vec![Vec::new(); many], ..Default::default() };
        let links = pb::Host { links: vec![pb::Link::default(); many], ..Default::default() };
        let removed = pb::DiskTable { removed: vec![Vec::new(); many], ..Default::default() };
        for sample in [
            pb::Sample { containers: Some(containers), ..Default::default() },
            pb::Sample { swarm: Some(pb::Swarm { view: Some(tasks), ..Default::default() }), ..Default::default() },
            pb::Sample {
                disks: Some(pb::DiskTable { changed: vec![aliases], ..Default::default() }),
                ..Default::default()
            },
            pb::Sample { host: Some(links), ..Default::default() },
            pb::Sample { disks: Some(removed), ..Default::default() },
            pb::Sample { errors: vec![pb::CollectorError::default(); many], ..Default::default() },
        ] {
            let bytes = report(sample);
            assert!(bytes.len() < MAX_MESSAGE_BYTES && unfolded(REPORT, &bytes) > MAX_UNFOLDED_BYTES);
        }
    }

    #[test]
    fn the_largest_honest_samples_pass() {
        let readings = pb::Readings { metric: (0..20).collect(), value: vec![1.5; 20] };
        let container = |n: u32| pb::Container {
            id: format!("{n:064x}").into_bytes(),
            name: format!("stack_service.{n}.abcdefghijklmnop"),
            image: "registry.example/team/app:1.2.3".into(),
            readings: Some(readings.clone()),
            labels: (0..12).map(|label| (format!("com.example.label{label}"), "value".into())).collect(),
            ..Default::default()
        };
        let containers = pb::ContainerTable { changed: (0..2_000).map(container).collect(), ..Default::default() };
        let volume = |n: u32| pb::Volume { name: n.to_string().into_bytes(), ..Default::default() };
        let volumes = pb::VolumeTable { changed: (0..5_000).map(volume).collect(), ..Default::default() };
        let bytes = report(pb::Sample { containers: Some(containers), volumes: Some(volumes), ..Default::default() });
        let memory = unfolded(REPORT, &bytes);
        assert!(bytes.len() > 1 << 20 && memory > bytes.len() && memory < MAX_UNFOLDED_BYTES / 2, "{memory}");
    }

    #[test]
    fn an_estimate_is_not_far_from_the_memory() {
        let row = size_of::<pb::Container>();
        let estimate = unfolded("mainstay.v1.Container", &[]);
        assert!((row * 3 / 4..row * 3 / 2).contains(&estimate), "{estimate} for {row}");
    }

    #[test]
    fn groups_and_rubbish_are_bounded_too() {
        assert_eq!(unfolded(REPORT, &[0x0b; 100]), usize::MAX);
        assert!(unfolded(REPORT, &[0xff; 100]) < 4_096);
        let mut deep = Vec::new();
        for _ in 0..200 {
            let mut outer = vec![0x12];
            prost::encode_length_delimiter(deep.len(), &mut outer).unwrap();
            outer.append(&mut deep);
            deep = outer;
        }
        assert!(unfolded(REPORT, &deep) < MAX_UNFOLDED_BYTES);
    }

    fn report(sample: pb::Sample) -> Vec<u8> {
        pb::Report { report: Some(pb::report::Report::Sample(sample)) }.encode_to_vec()
    }
}
