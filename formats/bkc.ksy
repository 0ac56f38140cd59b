meta:
  id: bkc
  title: bkcodec image
  file-extension: bkc
  license: MIT
  endian: le
  ks-version: "0.9"
doc: |
  The .bkc container, version 1. formats/bkc-1.md is the specification; this description
  covers its structure (not the rules on checksums, shortest-form varints and repetition).
seq:
  - id: magic
    contents: [0x8b, 0x42, 0x4b, 0x43]
  - id: version
    type: u1
    valid: 1
  - id: fingerprint
    size: 4
  - id: width
    type: varint
  - id: height
    type: varint
  - id: stride
    type: u1
    valid:
      min: 1
  - id: level
    type: u1
    valid:
      max: 200
  - id: sections
    type: section
    repeat: until
    repeat-until: _io.pos >= _io.size - 4
  - id: crc
    type: u4
types:
  varint:
    seq:
      - id: groups
        type: u1
        repeat: until
        repeat-until: _ < 0x80
    instances:
      value:
        value: >-
          (groups[0] & 0x7f)
          + (groups.size > 1 ? (groups[1] & 0x7f) << 7 : 0)
          + (groups.size > 2 ? (groups[2] & 0x7f) << 14 : 0)
          + (groups.size > 3 ? (groups[3] & 0x7f) << 21 : 0)
          + (groups.size > 4 ? (groups[4] & 0x7f) << 28 : 0)
  section:
    seq:
      - id: kind
        type: u1
        enum: kind
      - id: len_payload
        type: varint
      - id: payload
        size: len_payload.value
        type:
          switch-on: kind
          cases:
            kind::icc: packed
            kind::exif: packed
            kind::xmp: packed
            kind::hints: hints
            kind::layout: layout
  packed:
    seq:
      - id: method
        type: u1
        enum: packing
      - id: data
        size-eos: true
  hints:
    seq:
      - id: timestep_plus_1
        type: varint
      - id: seed
        type: varint
  layout:
    seq:
      - id: value
        type: u1
        valid: 1
enums:
  kind:
    0x01: z
    0x02: levels
    0x81: alpha
    0x82: icc
    0x83: exif
    0x84: xmp
    0x85: hints
    0x86: layout
  packing:
    0: stored
    1: zlib
