//! The numbers of the commands of a YubiHSM 2 that Highwater uses (Yubico, YubiHSM 2 commands).

pub(super) const CLOSE_SESSION: u8 = 0x40;
/// The only command that a device answers without a session too.
pub(super) const DEVICE_INFO: u8 = 0x06;
pub(super) const RESET_DEVICE: u8 = 0x08;
pub(super) const PUT_OPAQUE: u8 = 0x42;
pub(super) const PUT_AUTHENTICATION_KEY: u8 = 0x44;
pub(super) const PUT_ASYMMETRIC_KEY: u8 = 0x45;
pub(super) const GENERATE_ASYMMETRIC_KEY: u8 = 0x46;
pub(super) const LIST_OBJECTS: u8 = 0x48;
pub(super) const EXPORT_WRAPPED: u8 = 0x4a;
pub(super) const IMPORT_WRAPPED: u8 = 0x4b;
pub(super) const PUT_WRAP_KEY: u8 = 0x4c;
pub(super) const GET_LOG_ENTRIES: u8 = 0x4d;
pub(super) const GET_OBJECT_INFO: u8 = 0x4e;
pub(super) const SET_OPTION: u8 = 0x4f;
pub(super) const GET_OPTION: u8 = 0x50;
pub(super) const GET_PSEUDO_RANDOM: u8 = 0x51;
pub(super) const GET_PUBLIC_KEY: u8 = 0x54;
pub(super) const SIGN_ECDSA: u8 = 0x56;
pub(super) const DELETE_OBJECT: u8 = 0x58;
pub(super) const SET_LOG_INDEX: u8 = 0x67;
pub(super) const SIGN_EDDSA: u8 = 0x6a;
