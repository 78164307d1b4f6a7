// SPDX-License-Identifier: MPL-2.0

package framework

import "fmt"

// FieldData gives a handler its parameters as the schema says.
type FieldData struct {
	Raw    map[string]interface{}
	Schema map[string]*FieldSchema
}

// Validate converts every field that is present and in the schema.
func (d *FieldData) Validate() error {
	for field, raw := range d.Raw {
		schema, ok := d.Schema[field]
		if !ok {
			continue
		}
		if !schema.Type.known() {
			return fmt.Errorf("unknown field type %q for field %q", schema.Type, field)
		}
		if _, _, err := schema.Type.convert(raw); err != nil {
			return fmt.Errorf("error converting input for field %q: %w", field, err)
		}
	}
	return nil
}

// ValidateStrict refuses unknown fields and misses required ones too. Without a schema everything passes.
func (d *FieldData) ValidateStrict() error {
	if d.Schema == nil {
		return nil
	}
	for field := range d.Raw {
		if _, _, err := d.GetOkErr(field); err != nil {
			return fmt.Errorf("field %q: %w", field, err)
		}
	}
	for field, schema := range d.Schema {
		if !schema.Required {
			continue
		}
		if _, ok := d.Raw[field]; !ok {
			return fmt.Errorf("missing required field %q", field)
		}
	}
	return nil
}

// Get returns the field's value, else its default, else its type's zero. It panics if the schema lacks the field
// or the value cannot be converted, which Validate rules out.
func (d *FieldData) Get(k string) interface{} {
	schema := d.mustSchema(k)
	value, ok := d.GetOk(k)
	if !ok || value == nil {
		return schema.DefaultOrZero()
	}
	return value
}

// GetDefaultOrZero is what Get would return were the field not set.
func (d *FieldData) GetDefaultOrZero(k string) interface{} {
	return d.mustSchema(k).DefaultOrZero()
}

func (d *FieldData) mustSchema(k string) *FieldSchema {
	schema, ok := d.Schema[k]
	if !ok {
		panic(fmt.Sprintf("field %s not in the schema", k))
	}
	return schema
}

// GetFirst returns the first of the fields that is set.
func (d *FieldData) GetFirst(k ...string) (interface{}, bool) {
	for _, field := range k {
		if value, ok := d.GetOk(field); ok {
			return value, true
		}
	}
	return nil, false
}

// GetOk returns the field's value and whether it is set. It panics if the value cannot be converted.
func (d *FieldData) GetOk(k string) (interface{}, bool) {
	schema, ok := d.Schema[k]
	if !ok {
		return nil, false
	}
	value, ok, err := d.GetOkErr(k)
	if err != nil {
		panic(fmt.Sprintf("error reading %s: %s", k, err))
	}
	if ok && value == nil {
		value = schema.DefaultOrZero()
	}
	return value, ok
}

// GetOkErr is GetOk without panics.
func (d *FieldData) GetOkErr(k string) (interface{}, bool, error) {
	schema, ok := d.Schema[k]
	if !ok {
		return nil, false, fmt.Errorf("unknown field: %q", k)
	}
	if !schema.Type.known() {
		return nil, false, fmt.Errorf("unknown field type %q for field %q", schema.Type, k)
	}
	raw, ok := d.Raw[k]
	if !ok {
		return nil, false, nil
	}
	return schema.Type.convert(raw)
}
