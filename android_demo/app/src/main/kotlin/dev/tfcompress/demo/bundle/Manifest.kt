package dev.tfcompress.demo.bundle

import dev.tfcompress.demo.json.Fields
import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.json.JsonException
import dev.tfcompress.demo.tensor.ElementType
import dev.tfcompress.demo.tensor.Grid
import dev.tfcompress.demo.tensor.TensorInfo

/** Why a bundle cannot be used, in words for people. */
class BundleException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** What all models of a bundle are fed with; [mean] and [std] are those of pixels 0 to 255, empty unless an image. */
data class BundleInput(
    val name: String, val content: String, val type: ElementType, val shape: List<Int>,
    val mean: List<Double>, val std: List<Double>, val file: String,
) {
    val isImage: Boolean get() = content == "image"
    val elements: Int get() = shape.fold(1) { product, size -> Math.multiplyExact(product, size) }
}

/** An output of a model; [step] is 0 where float answers do not come from a grid. */
data class BundleOutput(val info: TensorInfo, val step: Double, val labelled: Boolean, val expected: String)

/** A model of a bundle; an input of a type that the app cannot feed is told by [unusable]. */
data class BundleModel(
    val name: String, val file: String, val sha256: String, val size: Int, val precision: String, val signature: String,
    val inputs: List<TensorInfo>, val outputs: List<BundleOutput>, val unusable: String? = null,
)

/** `manifest.json` of a bundle; `tflite_export/manifest.py` tells its form and checks the same. */
data class Manifest(
    val name: String, val labels: List<String>, val rows: Int, val inputs: List<BundleInput>, val models: List<BundleModel>,
) {
    /** Every file of the bundle but the manifest and its bytes. */
    val sizes: Map<String, Long> get() = buildMap {
        models.forEach { put(it.file, it.size.toLong()) }
        inputs.forEach { put(it.file, rows.toLong() * it.elements * it.type.bytes) }
        models.flatMap { it.outputs }.forEach { put(it.expected, rows.toLong() * it.info.bytes) }
    }

    companion object {
        const val FILE = "manifest.json"
        const val FORMAT = "tflite_export.bundle"
        const val SCHEMA = 1

        /** @throws BundleException where it is not a manifest, of a later schema, or a value does not fit. */
        fun parse(text: String): Manifest = try {
            read(Json.parse(text))
        } catch (error: JsonException) {
            throw BundleException("manifest.json: ${error.message}", error)
        } catch (error: ArithmeticException) {
            throw BundleException("manifest.json: a shape is too large", error)
        }

        private fun read(record: Any?): Manifest {
            need((record as? Map<*, *>)?.get("format") == FORMAT) { "this is not a bundle of tflite_export" }
            val fields = Fields(record, "manifest")
            val schema = fields.whole("schema")
            need(schema == SCHEMA) { "the bundle is of version $schema, this app reads $SCHEMA: update the app" }
            val labels = fields.texts("labels")
            val inputs = fields.objects("inputs").map(::input)
            val models = fields.objects("models").map { model(it, inputs, labels) }
            val rows = fields.whole("rows")
            need(models.isNotEmpty()) { "the bundle holds no model" }
            need(rows >= 1) { "the bundle holds no samples" }
            need(models.map { it.name }.toSet().size == models.size) { "two models have the same name" }
            return Manifest(fields.text("name"), labels, rows, inputs, models)
        }

        private fun input(fields: Fields): BundleInput {
            val name = fields.text("name")
            val type = fields.text("type")
            val found = BundleInput(
                name, fields.text("content"),
                ElementType.of(type) ?: throw BundleException("input '$name' is of type '$type', which this app does not know"),
                fields.sizes("shape"), fields.numbers("mean"), fields.numbers("std"), plain(fields.text("file")),
            )
            need(found.shape.all { it >= 1 }) { "input '$name' has the shape ${found.shape}" }
            if (found.isImage) {
                val channels = found.shape.lastOrNull() ?: 0
                need(found.shape.size == 3 && channels in listOf(1, 3) && found.type == ElementType.FLOAT32) {
                    "input '$name' is no image: $type ${found.shape}"
                }
                for (values in listOf(found.mean, found.std)) need(values.size in listOf(1, channels)) {
                    "input '$name' needs 1 or $channels numbers to be normalised, there are ${values.size}"
                }
                need(found.std.none { it == 0.0 }) { "input '$name' is divided by 0" }
            }
            return found
        }

        private fun model(fields: Fields, given: List<BundleInput>, labels: List<String>): BundleModel {
            val name = fields.text("name")
            val strange = (fields.objects("inputs") + fields.objects("outputs")).firstNotNullOfOrNull { end ->
                val type = end.text("type")
                if (ElementType.of(type) == null) "'${end.text("name")}' of model '$name' is of type '$type'. This app knows ${ElementType.known}." else null
            }
            // The other models of the bundle can still be used.
            val known = strange == null
            val inputs = if (known) fields.objects("inputs").map { end(it, name) } else emptyList()
            val outputs = if (known) fields.objects("outputs").map { output(it, name, labels) } else emptyList()
            if (known) {
                need(inputs.size == given.size) { "model '$name' takes ${inputs.size} inputs, the bundle has ${given.size}" }
                need(outputs.isNotEmpty()) { "model '$name' has no output" }
                for ((own, one) in inputs.zip(given)) need(own.shape.drop(1) == one.shape) {
                    "input '${own.name}' of model '$name' is ${own.shape}, samples are ${one.shape}"
                }
            }
            val size = fields.whole("size")
            need(size >= 1) { "model '$name' is empty" }
            return BundleModel(
                name, plain(fields.text("file")), fields.text("sha256"), size, fields.text("precision"),
                fields.text("signature"), inputs, outputs, strange,
            )
        }

        private fun output(fields: Fields, model: String, labels: List<String>): BundleOutput {
            val info = end(fields, model)
            val labelled = fields.truth("labelled")
            need(!labelled || info.shape.last() == labels.size) {
                "output '${info.name}' of model '$model' is ${info.shape}, there are ${labels.size} labels"
            }
            return BundleOutput(info, fields.numberOrNull("step") ?: 0.0, labelled, plain(fields.text("expected")))
        }

        private fun end(fields: Fields, model: String): TensorInfo {
            val name = fields.text("name")
            val shape = fields.sizes("shape")
            need(shape.firstOrNull() == 1 && shape.all { it >= 1 }) { "'$name' of model '$model' has the shape $shape" }
            val scale = fields.numberOrNull("scale")
            need(scale == null || scale > 0) { "'$name' of model '$model' has the scale $scale" }
            val grid = scale?.let { Grid(it.toFloat(), fields.whole("zero_point")) }
            return TensorInfo(name, ElementType.of(fields.text("type"))!!, shape, grid)
        }

        /** Names are joined to a folder of the phone: none leads out of it. */
        internal fun plain(file: String): String {
            need(PLAIN.matches(file)) { "'$file' is no plain name of a file" }
            return file
        }

        private inline fun need(fits: Boolean, reason: () -> String) {
            if (!fits) throw BundleException(reason())
        }

        private val PLAIN = Regex("[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
    }
}
