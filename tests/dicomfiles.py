"""DICOM files for tests, written by pydicom, with a patient in every place where one may stand."""

import io
import warnings

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit

PLANTED = "Planted"
"""Part of every value that is about the patient, and of nothing else."""


def encoded(image, kind="JPEG", **options):
    """Return a Pillow image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def dicom_file(pixels, syntax=JPEGBaseline8Bit, size=None, colors="YBR_FULL_422", **header):
    """Return a DICOM file of `pixels`: an array, or with `size`, (width, height), bytes as they are to be stored.

    Bytes are put into one fragment if the transfer syntax is compressed. `header` has further elements by keyword; None
    leaves one out.
    """
    bits = 8
    if isinstance(pixels, np.ndarray):
        bits, size = 8 * pixels.itemsize, pixels.shape[1::-1]
        pixels = pixels.astype(pixels.dtype.newbyteorder("<>"[syntax == ExplicitVRBigEndian])).tobytes()
    elif syntax.is_encapsulated:
        pixels = encapsulate([pixels])
    dataset = _with_patient()
    dataset.SamplesPerPixel = 1 if colors.startswith("MONO") else 3
    dataset.PhotometricInterpretation = colors
    dataset.Columns, dataset.Rows = size
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation, dataset.PlanarConfiguration = bits - 1, 0, 0
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    for name, value in header.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = (
        "1.2.3",
        "1.2.3.4",
    )
    dataset.file_meta.SourceApplicationEntityTitle = PLANTED
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of planted values that are too long for their kind
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def pixels_of(data):
    """Return the pixels of a DICOM file as pydicom reads them: as the samples are, YBR turned into RGB."""
    with warnings.catch_warnings(action="ignore"):
        return pixel_array(pydicom.dcmread(io.BytesIO(data)))


def _with_patient():
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.3", "1.2.3.4"
    dataset.PatientName, dataset.PatientID = f"{PLANTED}^Jane", f"{PLANTED}-1"
    dataset.StudyDescription = dataset.InstitutionName = dataset.ImageComments = f"{PLANTED} Jane"
    block = dataset.private_block(0x0009, PLANTED.upper(), create=True)
    block.add_new(1, "LO", f"{PLANTED} in private")
    block.add_new(2, "SQ", [pydicom.Dataset()])
    other = pydicom.Dataset()
    other.PatientName = f"{PLANTED}^Other"
    dataset.OtherPatientIDsSequence = [other, other]
    dataset["OtherPatientIDsSequence"].is_undefined_length = True
    return dataset
