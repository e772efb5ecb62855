//! What a token says of itself and of its objects, in another form than it is.

use super::{
    plan::{next, next_if_planned, number},
    real,
};
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_MECHANISM_TYPE, CK_OBJECT_CLASS, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_ULONG_PTR, CK_UNAVAILABLE_INFORMATION, CKA_ALWAYS_AUTHENTICATE, CKA_CLASS,
    CKA_EC_PARAMS, CKA_EC_POINT, CKA_KEY_TYPE, CKA_PUBLIC_KEY_INFO, CKO_PUBLIC_KEY, CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_BUFFER_TOO_SMALL, CKR_OK,
};
use std::{ptr, slice};

/// The attributes that the plan can show otherwise, by their names there.
const SHAPED: [(CK_ATTRIBUTE_TYPE, &str); 5] = [
    (CKA_ALWAYS_AUTHENTICATE, "always"),
    (CKA_EC_PARAMS, "params"),
    (CKA_EC_POINT, "point"),
    (CKA_KEY_TYPE, "type"),
    (CKA_PUBLIC_KEY_INFO, "info"),
];
/// The class of no object.
const NO_CLASS: CK_OBJECT_CLASS = 0x7fff_ffff;
/// DER tags.
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;

pub(super) unsafe extern "C" fn token_info(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let function = real().C_GetTokenInfo.expect("every module has it");
    let step = next("tokeninfo");
    // SAFETY: the caller's own arguments, passed on.
    let answer = step.or(|| unsafe { function(slot, info) });
    // SAFETY: null, or the structure that a module has just filled.
    let Some(info) = (unsafe { info.as_mut() }).filter(|_| answer == CKR_OK) else { return answer };
    match step.words()[..] {
        ["clear", flags] => info.flags &= !number(flags),
        ["set", flags] => info.flags |= number(flags),
        ["nulltime"] => info.utcTime = [0; 16],
        ["badtime"] => info.utcTime = *b"sometime in June",
        ["badinfo"] => {
            info.utcTime = [0xff; 16];
            info.manufacturerID = [0xfe; 32];
            info.ulMaxSessionCount = CK_ULONG::MAX - 1;
            info.ulSessionCount = CK_ULONG::MAX;
            info.ulTotalPublicMemory = CK_ULONG::MAX - 1;
            info.hardwareVersion.minor = 255;
            info.firmwareVersion.minor = 255;
        }
        ["pinlen", min, max] => {
            info.ulMinPinLen = min.parse().unwrap_or_default();
            info.ulMaxPinLen = max.parse().unwrap_or_default();
        }
        _ => {}
    }
    answer
}

pub(super) unsafe extern "C" fn mechanisms(
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: CK_ULONG_PTR,
) -> CK_RV {
    let function = real().C_GetMechanismList.expect("every module has it");
    let step = next("mechanisms");
    // SAFETY: the caller's own arguments, passed on.
    let answer = step.or(|| unsafe { function(slot, list, count) });
    let ["without", hidden] = step.words()[..] else { return answer };
    if answer == CKR_OK && !list.is_null() {
        // SAFETY: a module that answers CKR_OK has written so many numbers there.
        let listed = unsafe { slice::from_raw_parts_mut(list, usize::try_from(*count).unwrap_or_default()) };
        let kept: Vec<_> = listed.iter().copied().filter(|one| *one != number(hidden)).collect();
        listed[..kept.len()].copy_from_slice(&kept);
        // SAFETY: the caller takes the number from there.
        unsafe { *count = kept.len() as CK_ULONG };
    }
    answer
}

pub(super) unsafe extern "C" fn find(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    let function = real().C_FindObjectsInit.expect("every module has it");
    // SAFETY: the caller's own arguments, passed on.
    let call = || unsafe { function(session, template, count) };
    let wanted: &[CK_ATTRIBUTE] = if template.is_null() {
        &[]
    } else {
        // SAFETY: so many attributes, says the caller.
        unsafe { slice::from_raw_parts(template, usize::try_from(count).unwrap_or_default()) }
    };
    let is_public = wanted.iter().any(|attribute| {
        // SAFETY: the value of this attribute is a number of this type.
        attribute.type_ == CKA_CLASS && unsafe { attribute.pValue.cast::<CK_OBJECT_CLASS>().read() } == CKO_PUBLIC_KEY
    });
    let step = next(if is_public { "findpublic" } else { "find" });
    if step.words()[..] != ["hide"] {
        return step.or(call);
    }
    let mut class = NO_CLASS;
    let length = size_of::<CK_OBJECT_CLASS>() as CK_ULONG;
    let mut none = CK_ATTRIBUTE { type_: CKA_CLASS, pValue: (&raw mut class).cast(), ulValueLen: length };
    // SAFETY: one attribute that lives longer than the call.
    unsafe { function(session, &raw mut none, 1) }
}

pub(super) unsafe extern "C" fn attributes(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    let function = real().C_GetAttributeValue.expect("every module has it");
    // SAFETY: the caller's own arguments, passed on.
    let call = || unsafe { function(session, object, template, count) };
    if template.is_null() {
        return next("attribute").or(call);
    }
    // SAFETY: so many attributes, says the caller.
    let asked = || unsafe { slice::from_raw_parts_mut(template, usize::try_from(count).unwrap_or_default()) };
    // The target leaves its own lengths there.
    let rooms: Vec<_> = asked().iter().map(|attribute| attribute.ulValueLen).collect();
    let mut answer = next("attribute").or(call);
    for (attribute, room) in asked().iter_mut().zip(rooms) {
        let name = SHAPED.iter().find(|(kind, _)| *kind == attribute.type_).map(|(_, name)| *name);
        let Some(step) = name.and_then(next_if_planned) else { continue };
        let own = || value(session, object, attribute.type_);
        let shown = match step.words()[..] {
            ["hex", text] => Some(bytes(text)),
            ["raw"] => own().map(|point| bare(&point).to_vec()),
            ["octet"] => own().map(|point| wrapped(OCTET_STRING, &[], bare(&point))),
            ["bit"] => own().map(|point| wrapped(BIT_STRING, &[0], bare(&point))),
            _ => None,
        };
        answer = show(attribute, room, shown.as_deref());
    }
    answer
}

/// Answers as a module does: the length, or the value if there is room for it.
fn show(attribute: &mut CK_ATTRIBUTE, room: CK_ULONG, value: Option<&[u8]>) -> CK_RV {
    attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
    let Some(value) = value else { return CKR_ATTRIBUTE_TYPE_INVALID };
    let length = value.len() as CK_ULONG;
    if !attribute.pValue.is_null() {
        if length > room {
            return CKR_BUFFER_TOO_SMALL;
        }
        // SAFETY: the caller has room for as many bytes.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), attribute.pValue.cast(), value.len()) };
    }
    attribute.ulValueLen = length;
    CKR_OK
}

/// The value that the target shows.
fn value(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
    let function = real().C_GetAttributeValue.expect("every module has it");
    let mut attribute = CK_ATTRIBUTE { type_: kind, pValue: ptr::null_mut(), ulValueLen: 0 };
    // SAFETY: one attribute; the first call asks for the length.
    let answer = unsafe { function(session, object, &raw mut attribute, 1) };
    let length = usize::try_from(attribute.ulValueLen).ok().filter(|_| answer == CKR_OK)?;
    let mut value = vec![0_u8; length];
    attribute.pValue = value.as_mut_ptr().cast();
    // SAFETY: one attribute with room for its value.
    let answer = unsafe { function(session, object, &raw mut attribute, 1) };
    (answer == CKR_OK).then_some(value)
}

/// A point without the OCTET STRING around it.
fn bare(point: &[u8]) -> &[u8] {
    match point {
        [OCTET_STRING, length, inner @ ..] if usize::from(*length) == inner.len() => inner,
        other => other,
    }
}

fn wrapped(tag: u8, first: &[u8], point: &[u8]) -> Vec<u8> {
    let length = u8::try_from(first.len() + point.len()).expect("a point is short");
    [&[tag, length], first, point].concat()
}

/// Bytes in hex. Others are no bytes.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| hex.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..hex.len()).step_by(2).filter_map(digits).collect()
}
