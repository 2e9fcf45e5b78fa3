package dataset

import (
	"errors"
	"fmt"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Limits of the pages of a file. A page of some bytes can stand for any number of values, each the same long text of a
// dictionary: the library would make them all.
const (
	maxText       = 1 << 30 // bytes of all texts of a file
	fewValues     = 1 << 22 // values of a column that are never too many
	valuesPerByte = 64      // more values of a column for each byte of the file
)

// plainDictionary is the older number of RLEDictionary in a data page.
const plainDictionary format.Encoding = 2

// checkPages walks over the headers of all pages of a file and refuses what would cost more than its limits. The
// headers, not the footer, are what the library reads by.
func checkPages(meta *format.FileMetaData, data []byte) error {
	text := int64(0)
	for _, group := range meta.RowGroups {
		for _, column := range group.Columns {
			m := &column.MetaData
			from := m.DataPageOffset
			if m.DictionaryPageOffset != 0 {
				from = m.DictionaryPageOffset
			}
			if from < 0 || from > int64(len(data)) {
				return fmt.Errorf("a column begins at byte %d of %d", from, len(data))
			}
			n, err := pagesText(data[from:min(from+m.TotalCompressedSize, int64(len(data)))], int64(fewValues+valuesPerByte*len(data)))
			if err != nil {
				return fmt.Errorf("column %v: %w", m.PathInSchema, err)
			}
			if text += n; text > maxText {
				return fmt.Errorf("its texts may have more than %d bytes", int64(maxText))
			}
		}
	}
	return nil
}

// pagesText walks over the pages of one column of a row group and returns how long all its texts can be.
func pagesText(pages []byte, maxValues int64) (text int64, err error) {
	dictionary, values := int64(0), int64(0)
	for len(pages) > 0 {
		var h format.PageHeader
		var protocol thrift.CompactProtocol
		r := protocol.NewReaderFromBytes(pages)
		if err := thrift.NewDecoder(r).Decode(&h); err != nil {
			return 0, fmt.Errorf("a page's header: %w", err)
		}
		body := int64(len(pages)-r.BytesRead()) - int64(h.CompressedPageSize)
		if h.CompressedPageSize < 0 || body < 0 || h.UncompressedPageSize < 0 || h.UncompressedPageSize > maxColumn {
			return 0, fmt.Errorf("a page of %d bytes (%d uncompressed) where %d are left", h.CompressedPageSize, h.UncompressedPageSize, len(pages)-r.BytesRead())
		}
		var n int64
		var encoding format.Encoding
		switch {
		case h.Type == format.DictionaryPage && h.DictionaryPageHeader.Valid:
			n, dictionary = int64(h.DictionaryPageHeader.V.NumValues), max(dictionary, int64(h.UncompressedPageSize))
		case h.Type == format.DataPage && h.DataPageHeader.Valid:
			n, encoding = int64(h.DataPageHeader.V.NumValues), h.DataPageHeader.V.Encoding
		case h.Type == format.DataPageV2 && h.DataPageHeaderV2.Valid:
			n, encoding = int64(h.DataPageHeaderV2.V.NumValues), h.DataPageHeaderV2.V.Encoding
		default:
			return 0, fmt.Errorf("a page of type %v without its header", h.Type)
		}
		if n < 0 || values+n > maxValues {
			return 0, fmt.Errorf("%d values, the limit for a file of this size is %d", values+n, maxValues)
		}
		values += n
		switch encoding {
		case format.DeltaByteArray: // a value is the one before it and some more
			return 0, errors.New("encoding DELTA_BYTE_ARRAY is not supported, write it plain")
		case plainDictionary, format.RLEDictionary:
			text += n * dictionary
		default:
			text += int64(h.UncompressedPageSize)
		}
		if text > maxText {
			return text, nil
		}
		pages = pages[int64(len(pages))-body:]
	}
	return text, nil
}
